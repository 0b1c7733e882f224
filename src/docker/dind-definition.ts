// What Berth's own Docker-in-Docker engine consists of, as bodies of Engine API calls (design §8, contract "Ports").

import { createHash } from 'node:crypto'
import type { ContainerCreateOptions, HostConfig } from 'dockerode'
import { MANAGED_LABEL } from '../model/container.ts'

export interface DindDefinition {
  /** The node's id: what carries another one, or none, is not touched. */
  readonly node: string
  readonly image: string
  /** Of the container and the network; volumes begin with it. */
  readonly name: string
  readonly subnet: string
  /** On 127.0.0.1. */
  readonly port: number
  /** On 127.0.0.1, without TLS and so for everybody on this machine; absent: there is none. */
  readonly plainPort?: number
}

/** What differs from the defaults may be given; `plain` serves the second port, too. */
export interface DindWishes {
  readonly image?: string
  readonly plain?: boolean
}

/** Of the managed engine's API, behind TLS, on 127.0.0.1 (contract, "Ports"). */
export const DIND_PORT = 12_376

export function defaultDefinition(node: string, { image = 'docker:dind', plain = false }: DindWishes): DindDefinition {
  const fixed = { name: 'berth-dind', subnet: '172.30.0.0/16', port: DIND_PORT }
  return { node, image, ...fixed, ...(plain && { plainPort: 12375 }) }
}

/** On the container: what it was made from, and with how many rights. */
export const DEFINITION_LABEL = 'berth.dind.definition'
export const RIGHTS_LABEL = 'berth.dind.rights'

/** All rights at once, or a list of those that dockerd needs, where the engine refuses the former. */
export type Rights = 'privileged' | 'listed'

/** Where the image looks for the server's part of the certificates. */
export const SERVER_FOLDER = '/certs/server'

/** Files that the services of the engine share, in the engine's own container. */
export const FILES_FOLDER = '/berth/files'

const TLS = '2376/tcp'
const PLAIN = '2375/tcp'
const SECOND = 1_000_000_000
const SOCKET = 'unix:///var/run/docker.sock'

/** What is mounted where; the first is the engine's data, the others can be made again. */
export function volumesOf({ name }: DindDefinition): readonly { readonly name: string; readonly target: string }[] {
  return [
    { name: `${name}-data`, target: '/var/lib/docker' },
    { name: `${name}-certs`, target: SERVER_FOLDER },
    // Under the same path for the containers inside, so that a volume of theirs can name it.
    { name: `${name}-files`, target: FILES_FOLDER },
    { name: `${name}-logs`, target: '/berth/logs' },
  ]
}

export function labelsOf({ node }: DindDefinition): Readonly<Record<string, string>> {
  return { [MANAGED_LABEL]: node }
}

export function isOwn({ node }: DindDefinition, labels: Readonly<Record<string, string>> | null | undefined): boolean {
  return labels?.[MANAGED_LABEL] === node
}

/** @param fingerprint the server's certificate: dockerd reads it only when it starts, so another one is another engine */
export function definitionKey(definition: DindDefinition, fingerprint: string): string {
  const bodies = (['privileged', 'listed'] as const).map((rights) => containerBody(definition, '', rights))
  return createHash('sha256')
    .update(JSON.stringify([bodies, definition.subnet, fingerprint]))
    .digest('hex')
}

/** @param key of definitionKey */
export function containerBody(definition: DindDefinition, key: string, rights: Rights): ContainerCreateOptions {
  const { name, image, port, plainPort } = definition
  const script = [...(rights === 'listed' ? [WRITABLE_CGROUPS] : []), ...(plainPort === undefined ? [] : [PLAIN_PORT])]
  const publish = (host: number): object[] => [{ HostIp: '127.0.0.1', HostPort: String(host) }]
  return {
    name,
    Image: image,
    Hostname: name,
    Env: ['DOCKER_TLS_CERTDIR=/certs'],
    Labels: { ...labelsOf(definition), [DEFINITION_LABEL]: key, [RIGHTS_LABEL]: rights },
    ...(script.length > 0 && { Entrypoint: ['sh', '-ec', [...script, ENTRY_POINT].join('\n')] }),
    ExposedPorts: { [TLS]: {}, ...(plainPort !== undefined && { [PLAIN]: {} }) },
    Healthcheck: {
      Test: ['CMD', 'docker', `--host=${SOCKET}`, 'version'],
      Interval: 30 * SECOND,
      Timeout: 10 * SECOND,
      Retries: 3,
      StartPeriod: 30 * SECOND,
    },
    HostConfig: {
      RestartPolicy: { Name: 'unless-stopped' },
      NetworkMode: name,
      PortBindings: { [TLS]: publish(port), ...(plainPort !== undefined && { [PLAIN]: publish(plainPort) }) },
      Mounts: volumesOf(definition).map((volume) => ({
        Type: 'volume',
        Source: volume.name,
        Target: volume.target,
      })),
      LogConfig: { Type: 'json-file', Config: { 'max-size': '10m', 'max-file': '3' } },
      ...(rights === 'privileged' ? { Privileged: true } : LISTED_RIGHTS),
    },
  }
}

/**
 * Beside the rights that every container has: SYS_ADMIN to mount, NET_ADMIN for networks, SYS_PTRACE to keep the network
 * namespaces of its containers [m]. What the engine would deny with these, the two filters and the masked paths, is off.
 */
const LISTED_RIGHTS: HostConfig = {
  CapAdd: ['SYS_ADMIN', 'NET_ADMIN', 'SYS_PTRACE'],
  SecurityOpt: ['seccomp=unconfined', 'apparmor=unconfined'],
  MaskedPaths: [],
  ReadonlyPaths: [],
}

/** Only for a privileged container are they mounted writable; this is its own part of them, not the machine's. */
const WRITABLE_CGROUPS =
  'grep \' /sys/fs/cgroup\' /proc/mounts | while read -r _ folder _; do mount -o remount,bind,rw "$folder"; done'

/**
 * dockerd has TLS on all of its ports or on none, so this one is handed on to its socket. Who comes from the machine's
 * port comes from the network's gateway; a container inside, or beside this one, would be asked for nothing either and
 * own the machine, so its connection just ends.
 */
const PLAIN_PORT = `cat > /run/plain-port << 'END'
#!/bin/sh
gateway=$(awk '$2 == "00000000" { print $3; exit }' /proc/net/route)
socket=$(readlink /proc/self/fd/0)
peer=$(cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
  awk -v socket="$socket" 'socket == "socket:[" $10 "]" { sub(/:.*/, "", $3); print substr($3, length($3) - 7) }')
[ -n "$gateway" ] && [ "$peer" = "$gateway" ] && exec docker system dial-stdio
END
chmod +x /run/plain-port
nc -lk -p 2375 -e /run/plain-port &`

const ENTRY_POINT = 'exec dockerd-entrypoint.sh'
