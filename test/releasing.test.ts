// What the control plane does about releases by itself: it has Envoy ask for slots that nobody asks for.

import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { expect, test } from 'vitest'

import { unitOf, versionsOf } from '../src/model/release.ts'
import { createReleasing } from '../src/releasing.ts'
import { urlOf } from '../src/rows.ts'
import { Authority } from './docker/authority.ts'
import { client, service } from './fixtures/world.ts'

const backend = { kind: 'process', command: ['two'], cwd: '/srv', env: {}, secrets: {} } as const
const release = { canary: { backend, weight: 0, warm: true }, rollback: { errorRate: 1, requests: 1 }, drainMs: 0 }

test.for(['http', 'https'] as const)('the slot of a warm canary is asked for at a listener of %s', async (scheme) => {
  const folder = mkdtempSync(join(tmpdir(), 'berth-releasing-'))
  const listener = scheme === 'http' ? createServer() : tlsServer(folder)
  const tls = { certificate: join(folder, 'cert.pem'), key: join(folder, 'key.pem') }
  const files = service('files', { release, ...(scheme === 'https' && { tuning: { tls } }) })
  const versions = versionsOf(files, undefined, 0)
  const variant = unitOf(versions.canary!.service)
  await once(listener.listen(0, '127.0.0.1'), 'listening')
  const { port } = listener.address() as AddressInfo
  const asked = Promise.withResolvers<unknown>()
  listener.on('request', ({ method, url, headers }, res) => {
    asked.resolve([method, url, headers['x-mcp-client'], headers['mcp-session-id']])
    res.writeHead(404).end('{}')
  })
  const releasing = createReleasing({
    store: { releases: () => [], setRelease: () => undefined, removeRelease: () => undefined },
    token: () => undefined,
    adminSocket: join(folder, 'none'),
    slots: () => ({
      views: () => [],
      current: () => [
        { service: 'files', group: 'alice', generation: 1, state: 'up' },
        { service: variant, group: 'alice', generation: 1, state: 'asleep' },
      ],
    }),
    placed: () => [{ service: versions.stable, port, versions }],
    clients: () => [client('alice')],
    url: (each, at) => urlOf(each, at, '127.0.0.1', undefined),
    trial: () => Promise.resolve(),
    settled: () => Promise.resolve(),
    synced: () => true,
    changed: () => undefined,
    log: (message, fields) => {
      if (message === 'a slot was not woken') asked.reject(new Error(JSON.stringify(fields)))
    },
  })
  try {
    releasing.reconciled()
    expect(await asked.promise).toEqual(['DELETE', '/mcp', 'alice', `${variant.split('~')[1]}~none`])
  } finally {
    releasing.close()
    listener.closeAllConnections()
    listener.close()
    rmSync(folder, { recursive: true })
  }
})

function tlsServer(folder: string): Server {
  const { cert, key } = new Authority().issue(folder, { names: ['localhost'] })
  return createTlsServer({ cert: readFileSync(cert), key: readFileSync(key) })
}
