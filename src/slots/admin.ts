// Envoy's admin interface on its Unix socket.

import { request } from 'node:http'

/** A configuration dump of 100 services is some MB. */
const BODY_BYTES = 256 * 1024 * 1024

/** @throws when the socket does not answer in time or the body is larger than any that Envoy writes */
export function adminRequest(
  socketPath: string,
  method: 'GET' | 'POST',
  path: string,
  deadlineMs = 5000,
): Promise<{ readonly status: number; readonly body: string }> {
  return new Promise((resolve, reject) => {
    // Never on a kept connection: there, an Envoy that has been replaced answers on.
    const options = { socketPath, method, path, agent: false, signal: AbortSignal.timeout(deadlineMs) }
    const call = request(options, (response) => {
      const chunks: Buffer[] = []
      let size = 0
      response.on('data', (chunk: Buffer) => {
        size += chunk.length
        if (size > BODY_BYTES) call.destroy(new Error(`${path}: more than ${BODY_BYTES} bytes`))
        else chunks.push(chunk)
      })
      response.on('error', reject)
      response.on('end', () => {
        resolve({ status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString('utf8') })
      })
    })
    call.on('error', reject)
    call.end()
  })
}

/** Ports that an Envoy listens on. @throws when it does not answer */
export async function listenerPorts(socketPath: string): Promise<Set<number>> {
  const { body } = await adminRequest(socketPath, 'GET', '/listeners?format=json')
  const { listener_statuses: listeners = [] } = JSON.parse(body) as {
    listener_statuses?: { local_address?: { socket_address?: { port_value?: number } } }[]
  }
  return new Set(listeners.flatMap(({ local_address: address }) => address?.socket_address?.port_value ?? []))
}

export interface ServerInfo {
  /** Such as `1.40.0`. */
  readonly version: string | undefined
  /** 0, and one more with each hot restart. */
  readonly epoch: number
  readonly uptimeSeconds: number
  /** After this it ends the one that it has taken over from; undefined: it does not say. */
  readonly parentShutdownSeconds: number | undefined
}

/** @throws when it does not answer */
export async function serverInfo(socketPath: string): Promise<ServerInfo> {
  const { body } = await adminRequest(socketPath, 'GET', '/server_info', 1000)
  const info = JSON.parse(body) as {
    readonly version?: string
    readonly uptime_current_epoch?: string
    readonly command_line_options?: { readonly restart_epoch?: number; readonly parent_shutdown_time?: string }
  }
  const parentShutdown = info.command_line_options?.parent_shutdown_time
  return {
    // "<commit>/1.40.0/Clean/RELEASE/BoringSSL"
    version: info.version?.split('/')[1],
    epoch: info.command_line_options?.restart_epoch ?? 0,
    uptimeSeconds: Number.parseInt(info.uptime_current_epoch ?? '0', 10),
    parentShutdownSeconds: parentShutdown === undefined ? undefined : Number.parseInt(parentShutdown, 10),
  }
}
