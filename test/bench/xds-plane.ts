// The part of the control plane that programs Envoy, as a program of its own, with slots that are all up behind one socket:
// 2,000 adapters would measure the machine. The configuration comes over IPC: which client is shut out of which service.

import { join } from 'node:path'

import { EMPTY, type Snapshot } from '../../src/compile/snapshot.ts'
import { leanHeap } from '../../src/commands/lean-heap.ts'
import { DEFAULT_LIMITS } from '../../src/config/limits.ts'
import type { Config } from '../../src/config/load.ts'
import { DEFAULT_SCALE } from '../../src/model/service.ts'
import type { Slot } from '../../src/model/slot.ts'
import { Reconciler } from '../../src/reconcile.ts'
import { openStore } from '../../src/store/store.ts'
import { createCodec } from '../../src/xds/codec.ts'
import { loadDescriptors } from '../../src/xds/descriptors.ts'
import { XdsServer, type XdsCounters } from '../../src/xds/server.ts'
import { LDS, RDS, SRDS } from '../../src/xds/type-urls.ts'

export interface PlaneSettings {
  readonly folder: string
  readonly cache: string
  readonly envoy: string
  readonly upstream: string
  readonly services: number
  readonly clients: number
  readonly gateway: number
  readonly firstPort: number
}

export type ToPlane = { readonly shutOut: { readonly service: number; readonly client: number } | undefined }
export type FromPlane =
  | { readonly published: number }
  | { readonly isSynced: boolean; readonly counters: XdsCounters; readonly newcomers: number }

leanHeap()
const settings = JSON.parse(process.argv[2]!) as PlaneSettings
const say = (message: FromPlane): void => void process.send?.(message)

const clients = Array.from({ length: settings.clients }, (_, i) => ({
  name: `client-${i}`,
  tier: 'pro',
  services: ['*'],
}))
const names = Array.from({ length: settings.services }, (_, i) => `service-${i}`)

function config(shutOut: ToPlane['shutOut']): Config {
  return {
    services: names.map((name, i) => ({
      name,
      source: 'config',
      where: `berth.yaml:${i}`,
      port: settings.firstPort + i,
      isolation: 'session',
      era: 'auto',
      sse: false,
      limits: DEFAULT_LIMITS,
      scale: DEFAULT_SCALE,
      clients:
        shutOut?.service === i ? clients.filter((_, at) => at !== shutOut.client).map((client) => client.name) : ['*'],
      backend: { kind: 'process', command: ['server', name], cwd: '/srv', env: {}, secrets: {} },
    })),
    clients,
    engines: [],
    bind: '127.0.0.1',
    consul: undefined,
    ports: {
      services: { from: settings.firstPort, to: settings.firstPort + settings.services },
      gateway: settings.gateway,
      api: 1,
      dashboard: 2,
      metrics: 3,
      graceMs: 600_000,
    },
  }
}

let current: Slot[] = []
const codec = createCodec(await loadDescriptors(settings.envoy, join(settings.cache, 'descriptors')))
const store = openStore(join(settings.folder, 'berth.db'))
let isSynced = false
const xds = new XdsServer({
  refused: store.refused(),
  setRefused: (refused) => store.setRefused(refused),
  demand: () => 'never',
  changed: () => {
    const now = xds.synced([LDS, SRDS, RDS])
    if (now === isSynced) return
    isSynced = now
    say({ isSynced, counters: { ...xds.counters }, newcomers: xds.newcomers })
  },
  log: () => undefined,
})
let snapshot: Snapshot = EMPTY
const reconciler = new Reconciler({
  slots: {
    sync: (services, all) => {
      current = services.flatMap((service) =>
        // Also of who is shut out: a cluster that went would have to come back under another name.
        all.map(({ name }) => ({
          service: service.name,
          group: name,
          generation: 1,
          state: 'up',
          socket: settings.upstream,
        })),
      )
    },
    current: () => current,
    tell: () => current,
    retired: () => [],
    problems: () => [],
    views: () => current.map((slot) => ({ ...slot, fingerprint: '' })),
  },
  living: () => new Set(),
  store,
  encode: (typeUrl, json) => codec.encode(typeUrl, json),
  publish: (next, changes) => {
    snapshot = next
    xds.publish(snapshot, changes)
  },
  canBind: async () => true,
  deployments: { services: () => [], look: () => undefined },
  releases: { versions: (stable) => ({ stable }), peek: (stable) => ({ stable }) },
  image: () => ({ state: 'present' }),
  node: 'bench',
  hosts: [],
  reap: () => undefined,
  reconciled: () => undefined,
  log: () => undefined,
  now: Date.now,
})
const began = performance.now()
reconciler.setConfig(config(undefined), new Map())
await reconciler.settled()
say({ published: performance.now() - began })
await xds.listen(join(settings.folder, 'xds'))
process.on('message', ({ shutOut }: ToPlane) => reconciler.setConfig(config(shutOut), new Map()))
process.on('disconnect', () => process.exit())
