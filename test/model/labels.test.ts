import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { LabelledContainer } from '../../src/model/container.ts'
import { servicesFromContainers } from '../../src/model/labels.ts'
import { containerFor } from '../../src/model/slot.ts'
import type { Limits } from '../../src/model/service.ts'

const DEFAULTS: Limits = { concurrency: 16, queue: 100, timeoutMs: 60_000, messageBytes: 16_000_000 }

type Labels = Readonly<Record<string, string>>

/** A container that serves `files` as it should; its age is the minute of its creation. */
function container(name: string, labels: Labels = {}, facts: Partial<LabelledContainer> = {}): LabelledContainer {
  return {
    engine: 'host',
    id: `id-${name}`,
    name,
    labels: { 'berth.service': 'files', ...labels },
    state: 'running',
    createdAt: '2026-01-01T00:00:00.123456789Z',
    startedAt: '2026-01-01T00:00:01.5Z',
    openStdin: true,
    tty: false,
    ...facts,
  }
}

function born(minute: number): Pick<LabelledContainer, 'createdAt'> {
  return { createdAt: new Date(Date.UTC(2026, 0, 1, 0, minute)).toISOString() }
}

const read = (...containers: readonly LabelledContainer[]) => servicesFromContainers(containers, DEFAULTS)

describe('one container', () => {
  test('with nothing but its service is a shared service with the defaults', () => {
    expect(read(container('mcp-files'))).toEqual({
      problems: [],
      services: [
        {
          name: 'files',
          source: 'docker',
          where: 'container mcp-files',
          port: undefined,
          isolation: 'shared',
          era: 'auto',
          sse: false,
          limits: DEFAULTS,
          scale: { warm: 0, max: undefined },
          clients: ['*'],
          backend: {
            kind: 'containers',
            containers: [
              {
                engine: 'host',
                id: 'id-mcp-files',
                name: 'mcp-files',
                client: undefined,
                state: 'running',
                startedAt: '2026-01-01T00:00:01.5Z',
              },
            ],
          },
        },
      ],
    })
  })

  test.each<[Labels, object]>([
    [{ 'berth.client': 'alice' }, { isolation: 'client', backend: { containers: [{ client: 'alice' }] } }],
    [{ 'berth.client': 'alice', 'berth.isolation': 'client' }, { isolation: 'client' }],
    [{ 'berth.isolation': 'shared' }, { isolation: 'shared' }],
    [{ 'berth.port': '11105' }, { port: 11_105 }],
    [{ 'berth.era': 'modern' }, { era: 'modern' }],
    [{ 'berth.limits.concurrency': '4' }, { limits: { ...DEFAULTS, concurrency: 4 } }],
    [{ 'berth.limits.queue': '0' }, { limits: { ...DEFAULTS, queue: 0 } }],
    [{ 'berth.limits.timeout': '2m' }, { limits: { ...DEFAULTS, timeoutMs: 120_000 } }],
    [{ 'berth.limits.message': '1MiB' }, { limits: { ...DEFAULTS, messageBytes: 1_048_576 } }],
    [{ 'berth.scale.min': '1' }, { scale: { warm: 0, max: undefined, min: 1 } }],
    [{ 'berth.scale.idle': '10m' }, { scale: { warm: 0, max: undefined, idleMs: 600_000 } }],
    [
      { 'berth.scale.streams': 'ignore', 'berth.scale.start': '2m' },
      { scale: { streams: 'ignore', startMs: 120_000 } },
    ],
    [{ 'berth.managed': 'node-1' }, { name: 'files' }],
    [{ 'com.example.berth': 'x' }, { name: 'files' }],
  ])('with %j', (labels, expected) => {
    const { services, problems } = read(container('mcp-files', labels))
    expect(problems).toEqual([])
    expect(services).toMatchObject([expected])
  })

  test.each(['unhealthy', 'stopped', 'unreachable'] as const)('that is %s stays, so that clients get 503', (state) => {
    expect(read(container('mcp-files', {}, { state })).services).toMatchObject([
      { backend: { containers: [{ state }] } },
    ])
  })
})

describe('a label that cannot be read counts as absent', () => {
  test.each<[Labels, RegExp]>([
    [{ 'berth.port': '0' }, /"0", which is not a number from 1 to 65535/],
    [{ 'berth.port': '70000' }, /berth.port is "70000"/],
    [{ 'berth.port': 'http' }, /berth.port is "http"/],
    [{ 'berth.era': 'future' }, /not one of auto, legacy, modern, dual/],
    [{ 'berth.limits.concurrency': '0' }, /a whole number above 0/],
    [{ 'berth.limits.queue': '-1' }, /a whole number/],
    [{ 'berth.limits.timeout': '60' }, /a duration such as 60s/],
    [{ 'berth.limits.timeout': '0s' }, /a duration such as 60s/],
    [{ 'berth.scale.min': '2' }, /0, or 1/],
    [{ 'berth.scale.idle': '10ms' }, /a duration from 1s to 7d/],
    [{ 'berth.scale.streams': 'yes' }, /one of keep, ignore/],
    [{ 'berth.limits.message': 'big' }, /a size such as 16MB/],
    [{ 'berth.limits.message': 'x'.repeat(120) }, /is "x{80}…"/],
    [{ 'berth.serivce': 'x' }, /Label berth.serivce is not known/],
  ])('%j', (labels, message) => {
    const { services, problems } = read(container('mcp-files', labels))
    expect(services).toEqual(read(container('mcp-files')).services)
    expect(problems).toMatchObject([{ about: 'service files', where: 'container mcp-files' }])
    expect(problems[0]?.message).toMatch(message)
  })

  test.each([
    ['berth.servcie', 'Did you mean berth.service?'],
    ['berth.limits.concurency', 'Did you mean berth.limits.concurrency?'],
    ['berth.colour', /^The labels are berth.service, /],
  ])('%s: %s', (label, remedy) => {
    expect(read(container('mcp-files', { [label]: '1' })).problems[0]?.remedy).toMatch(remedy)
  })
})

describe('a container that cannot serve as it says is left out', () => {
  test.each<[string, Labels, Partial<LabelledContainer>, RegExp, RegExp]>([
    ['a bad name', { 'berth.service': 'My_Files' }, {}, /"My_Files" cannot name a service/, /lower-case/],
    ['an empty name', { 'berth.service': '' }, {}, /"" cannot name a service/, /lower-case/],
    ['the name of the gateway', { 'berth.service': 'gateway' }, {}, /taken by Berth/, /berth.service/],
    ['a bad client', { 'berth.client': 'a/b' }, {}, /"a\/b" cannot name a client/, /berth.client/],
    ['everybody as client', { 'berth.client': '*' }, {}, /cannot name a client/, /berth.client/],
    ['sessions', { 'berth.isolation': 'session' }, {}, /one stdin/, /berth.yaml/],
    ['sessions of a client', { 'berth.isolation': 'session', 'berth.client': 'alice' }, {}, /one stdin/, /berth.yaml/],
    ['a client that is not named', { 'berth.isolation': 'client' }, {}, /whose it is/, /one container per client/],
    ['shared and given away', { 'berth.isolation': 'shared', 'berth.client': 'a' }, {}, /to a alone/, /Remove one/],
    ['an unknown isolation', { 'berth.isolation': 'none' }, {}, /"none"/, /client or shared/],
    ['closed stdin', {}, { openStdin: false }, /stdin is closed/, /docker run -di/],
    ['a terminal', {}, { tty: true }, /terminal/, /without -t/],
  ])('%s', (_, labels, facts, message, remedy) => {
    const { services, problems } = read(
      container('mcp-files', labels, facts),
      container('other', { 'berth.service': 'b' }),
    )
    expect(services.map(({ name }) => name)).toEqual(['b'])
    expect(problems).toHaveLength(1)
    expect(problems[0]).toMatchObject({ where: 'container mcp-files' })
    expect(problems[0]?.message).toMatch(message)
    expect(problems[0]?.remedy).toMatch(remedy)
  })
})

describe('several containers', () => {
  test('are one service with one container per client', () => {
    const { services, problems } = read(
      container('for-bob', { 'berth.client': 'bob' }),
      container('for-all', {}),
      container('for-alice', { 'berth.client': 'alice' }),
    )
    expect(problems).toEqual([])
    expect(services).toHaveLength(1)
    expect(services[0]?.isolation).toBe('client')
    expect(containerFor(services[0]!, 'alice')?.name).toBe('for-alice')
    expect(containerFor(services[0]!, 'carol')?.name).toBe('for-all')
  })

  test('for the same client: the older one serves, also across engines', () => {
    const { services, problems } = read(
      container('young', {}, { ...born(2), engine: 'dind' }),
      container('old', {}, born(1)),
    )
    expect(services).toMatchObject([{ where: 'container old', backend: { containers: [{ name: 'old' }] } }])
    expect(problems).toMatchObject([{ about: 'service files', where: 'container young' }])
    expect(problems[0]?.message).toContain('container old on engine host serves all clients already')
    expect(problems[0]?.message).toContain('container young on engine dind is not used')
  })

  test.each(['stopped', 'unreachable'] as const)('an older one that is %s does not keep a younger one out', (state) => {
    const { services, problems } = read(
      container('old', {}, { ...born(1), state }),
      container('young', {}, { ...born(2), state: 'unhealthy' }),
    )
    expect(services).toMatchObject([{ backend: { containers: [{ name: 'young' }] } }])
    expect(problems).toMatchObject([{ where: 'container old' }])
  })

  test('with different settings: the oldest that has one decides', () => {
    const { services, problems } = read(
      container('c', { 'berth.client': 'c', 'berth.port': '11103', 'berth.limits.queue': '5' }, born(3)),
      container('b', { 'berth.client': 'b', 'berth.port': '11102' }, born(2)),
      container('a', { 'berth.client': 'a' }, born(1)),
    )
    expect(services).toMatchObject([{ port: 11_102, limits: { queue: 5 } }])
    expect(problems).toMatchObject([{ where: 'container c' }])
    expect(problems[0]?.message).toBe(
      'berth.port is 11103 here and 11102 at container b on engine host, which is older and decides.',
    )
  })
})

test('the order of the containers does not matter, and nothing in a label makes it throw', () => {
  const label = fc.constantFrom(
    'berth.client',
    'berth.isolation',
    'berth.port',
    'berth.limits.queue',
    'berth.x',
    'berth.era',
  )
  const value = fc.oneof(fc.constantFrom('a', 'b', 'client', 'shared', 'session', '1', '11100', 'auto'), fc.string())
  const any = fc.record({
    labels: fc.dictionary(label, value),
    service: fc.oneof(fc.constantFrom('files', 'time'), fc.string()),
    state: fc.constantFrom('running' as const, 'unhealthy' as const, 'stopped' as const, 'unreachable' as const),
    engine: fc.constantFrom('host', 'dind'),
    minute: fc.nat(3),
    openStdin: fc.boolean(),
  })
  const lists = fc.array(any, { maxLength: 6 }).chain((facts) => {
    const containers = facts.map(({ labels, service, minute, ...rest }, i) =>
      container(`c${i}`, { ...labels, 'berth.service': service }, { ...rest, ...born(minute) }),
    )
    return fc.tuple(fc.constant(containers), fc.shuffledSubarray(containers, { minLength: containers.length }))
  })
  const property = fc.property(lists, ([one, other]) => {
    expect(read(...one)).toEqual(read(...other))
  })
  fc.assert(property)
})
