// Docker engines as the configuration writes them, and the addresses of those behind ssh.

/** An engine as the configuration writes it; with neither socket nor host nor ssh it is the one of this machine. */
export interface WrittenEngine {
  readonly name: string
  readonly socketPath?: string
  readonly host?: string
  readonly port?: number
  readonly ssh?: SshHost
  /** The folder of ca.pem, cert.pem and key.pem, absolute; only with a host. */
  readonly tls?: string
  /** Berth brings it up itself, inside another one. */
  readonly managed?: boolean
  /** Of a managed one; absent: the official image of Docker-in-Docker. */
  readonly image?: string
  /** Of a managed one: also without TLS, for everybody on this machine. */
  readonly plain?: boolean
}

/** An engine's socket on a machine that is reached by ssh; what is left out is up to the ssh client's configuration. */
export interface SshHost {
  readonly user?: string
  readonly host: string
  readonly port?: number
  readonly socketPath: string
}

/** An engine behind ssh, and the socket on this machine that leads to it. */
export interface TunnelledEngine {
  readonly name: string
  readonly socketPath: string
  readonly ssh: SshHost
}

const DEFAULT_SOCKET = '/var/run/docker.sock'

// Neither part may begin like an option of ssh, and the path has nothing in it that ssh would expand.
const SSH =
  /^ssh:\/\/(?:(?<user>[A-Za-z0-9_][A-Za-z0-9_.-]*)@)?(?:\[(?<address>[0-9A-Fa-f:.]+)\]|(?<name>[A-Za-z0-9][A-Za-z0-9._-]*))(?::(?<port>\d{1,5}))?(?<path>\/[A-Za-z0-9._/@+,-]*)?$/

/** Of `ssh://user@host:port/path/of/docker.sock`; all but the host may be left out. Undefined: it is no such address. */
export function parseSshHost(text: string): SshHost | undefined {
  const { user, address, name, port, path } = SSH.exec(text)?.groups ?? {}
  const host = address ?? name
  if (host === undefined || (port !== undefined && !(Number(port) >= 1 && Number(port) <= 65_535))) return undefined
  const socketPath = path === undefined || path === '/' ? DEFAULT_SOCKET : path
  return { ...(user !== undefined && { user }), host, ...(port !== undefined && { port: Number(port) }), socketPath }
}

/** As the configuration has it, the usual path left out. */
export function sshAddress({ user, host, port, socketPath }: SshHost): string {
  const name = host.includes(':') ? `[${host}]` : host
  const path = socketPath === DEFAULT_SOCKET ? '' : socketPath
  return `ssh://${user === undefined ? '' : `${user}@`}${name}${port === undefined ? '' : `:${port}`}${path}`
}

/** What people type to look for themselves. */
export function sshCommand({ user, host, port }: SshHost, command: string): string {
  return ['ssh', ...(port === undefined ? [] : ['-p', port]), user === undefined ? host : `${user}@${host}`, command]
    .filter((word) => word !== '')
    .join(' ')
}
