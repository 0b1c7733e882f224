// Every knob of the table: a change of it changes exactly the resources that the table says, and so cuts no more streams.

import { expect, test } from 'vitest'
import { parse, stringify } from 'yaml'

import { bootstrap } from '../../src/compile/bootstrap.ts'
import { compile, type World } from '../../src/compile/compile.ts'
import { loadConfig, type Config } from '../../src/config/load.ts'
import { globalTuning } from '../../src/config/tuning.ts'
import { KNOBS, type Knob } from '../../src/model/knobs.ts'
import { problemLine } from '../../src/model/problem.ts'
import { processTuning, type TlsMaterial } from '../../src/model/tuning.ts'
import { client, service, world } from '../fixtures/world.ts'

const MATERIAL: TlsMaterial = { chain: 'CHAIN', key: 'KEY', clientCa: undefined, names: ['mcp.example.com'] }

/** The rest that a row needs to be valid. */
const BESIDE: Readonly<Record<string, object>> = {
  'retries.per_try_timeout': { retries: { may_repeat_effects: 'true' } },
  'retries.may_repeat_effects': { retries: { on: ['5xx', 'connect-failure'] } },
  'tracing.sampling': { tracing: { collector: 'http://127.0.0.1:4317' } },
}

function load(envoy: object, own: object = {}): Config {
  const text = stringify({ services: { files: { command: ['x'], envoy: own } }, envoy })
  const loaded = loadConfig({ text, file: 'berth.yaml', folder: '/srv' })
  if ('problems' in loaded) throw new Error(loaded.problems.map(problemLine).join('\n'))
  return loaded.config
}

function written({ key, example }: Pick<Knob, 'key' | 'example'>, beside: object = {}): object {
  const [group, leaf] = key.split('.') as [keyof object, string?]
  const inGroup = leaf === undefined ? example : { ...(beside[group] as object | undefined), [leaf]: example }
  return { ...beside, [group]: inGroup }
}

function worldOf({ services, tuning }: Config, certificates: World['certificates'] = new Map()): World {
  const slots = [{ service: 'files', group: 'alice', generation: 1, state: 'up' as const, socket: '/run/a' }]
  return world([service('files', { tuning: services[0]!.tuning ?? {} })], {
    clients: [client('alice')],
    slots,
    tuning,
    certificates,
  })
}

function differences(before: World, after: World): string[] {
  const [old, now] = [compile(before), compile(after)]
  return (['listeners', 'scopedRoutes', 'routes', 'clusters', 'secrets'] as const).filter(
    (kind) => JSON.stringify(old[kind] ?? []) !== JSON.stringify(now[kind] ?? []),
  )
}

const CERTIFICATES = new Map([
  ['gateway', MATERIAL],
  ['files', MATERIAL],
])
const LIVES = { listener: ['listeners'], route: ['routes'], cluster: ['clusters'], process: [] }
/** Of what a row switches on, the certificate and the share of traced requests are where they can change alone. */
const ALSO: Readonly<Record<string, string[]>> = { tls: ['listeners', 'secrets'], tracing: ['listeners', 'routes'] }

test.for(KNOBS)('$key is in the $lives', (knob) => {
  const { key, lives } = knob
  const beside = BESIDE[key]
  // Conditions that are not safe are no mistake only beside the words that allow them.
  const from =
    key === 'retries.may_repeat_effects' ? worldWithUnsafeRetries() : worldOf(load(beside ?? {}), CERTIFICATES)
  const changed = load(written(knob, beside))
  const expected = ALSO[key] ?? LIVES[lives]
  expect(differences(from, worldOf(changed, CERTIFICATES))).toEqual(expected)

  const process = (config: Config) => {
    const { drain, overload } = processTuning(config.tuning)
    return JSON.stringify([
      drain,
      bootstrap({
        node: 'n',
        xdsSocket: '/x',
        adminSocket: '/a',
        limits: { heapBytes: 1, connections: overload.max_connections },
      }),
    ])
  }
  expect(process(changed) !== process(load({}))).toBe(lives === 'process')

  if (lives === 'process') return
  // Of one service, nobody else's, and not the gateway's.
  const own = compile(worldOf(load({}, written(knob, beside)), CERTIFICATES))
  const without = compile(worldOf(load({}), CERTIFICATES))
  expect(own.listeners[0]).toEqual(without.listeners[0])
  expect(own.secrets?.some(({ name }) => name.startsWith('gateway')) ?? false).toBe(false)
})

/** Allowed for all services once, and taken back by one: its requests must not be repeated any more. */
function worldWithUnsafeRetries(): World {
  const config = load(
    { retries: { on: ['5xx', 'connect-failure'], may_repeat_effects: 'true' } },
    { retries: { may_repeat_effects: 'false' } },
  )
  const given = worldOf(config, CERTIFICATES)
  expect(JSON.stringify(compile(given).routes)).toContain('"retry_on":"connect-failure"')
  return given
}

test.for(KNOBS)('$key is $default when nobody says anything', (knob) => {
  const { key } = knob
  // Only what is allowed by it needs the words.
  const beside = key === 'retries.may_repeat_effects' ? {} : BESIDE[key]
  const said = load(written({ key, example: parse(knob.default) }, beside))
  const unsaid = load(beside ?? {})
  expect(compile(worldOf(said))).toEqual(compile(worldOf(unsaid)))
  expect(processTuning(said.tuning)).toEqual(processTuning(unsaid.tuning))
})

test('the table has every key of the configuration, once', () => {
  const leaves = new Set<string>()
  for (const [group, schema] of Object.entries(globalTuning)) {
    const inner = shapeOf(schema)
    const isWhole = KNOBS.some(({ key }) => key === group)
    if (isWhole || !inner) leaves.add(group)
    else for (const leaf of Object.keys(inner)) leaves.add(`${group}.${leaf}`)
  }
  const keys = KNOBS.map(({ key }) => key)
  expect(new Set(keys).size).toBe(keys.length)
  expect(new Set(keys.filter((key) => key !== 'tracing.sampling'))).toEqual(leaves)
})

/** The keys of a group: the schema of a mapping is inside that of what may be absent. */
function shapeOf(schema: unknown): object | undefined {
  let inner = schema as { def?: { in?: unknown; innerType?: unknown; shape?: object } } | undefined
  while (inner?.def && !inner.def.shape) inner = (inner.def.in ?? inner.def.innerType) as typeof inner
  return inner?.def?.shape
}

test('a listener whose certificate cannot be had is not there, and nobody is served in the clear instead', () => {
  const config = load({}, { tls: { certificate: 'c.pem', key: 'k.pem' } })
  const names = compile(worldOf(config)).listeners.map(({ name }) => name)
  expect(names).toEqual(['gateway:10005'])
})

test('a key is in no resource that is shown, and a certificate of another path changes no listener', () => {
  const tls = (file: string) => ({ tls: { certificate: file, key: file } })
  const resources = compile(worldOf(load(tls('a.pem')), CERTIFICATES))
  const shown = JSON.stringify({ ...resources, secrets: resources.secrets!.map(({ name, json }) => ({ name, json })) })
  expect(shown).not.toContain('KEY')
  expect(JSON.stringify(resources.secrets![0]!.sealed)).toContain('"KEY"')
  expect(JSON.stringify(resources.routes[0]!.json['virtual_hosts'])).toContain('"[::1]","mcp.example.com"]')
  expect(differences(worldOf(load(tls('a.pem')), CERTIFICATES), worldOf(load(tls('b.pem')), CERTIFICATES))).toEqual([])
})
