// Patches in the configuration: which resources they are for, and values that keep the types they are written with.

import { describe, expect, test } from 'vitest'

import { loadConfig } from '../../src/config/load.ts'
import { loadManifest } from '../../src/config/manifest.ts'
import { problemLine } from '../../src/model/problem.ts'

const load = (text: string) => loadConfig({ text, file: 'berth.yaml', folder: '/etc/berth' })

function patches(text: string) {
  const loaded = load(text)
  if ('problems' in loaded) throw new Error(loaded.problems.map(problemLine).join('\n'))
  return loaded.config.patches
}

const wrong = (text: string): string[] => {
  const loaded = load(text)
  return 'problems' in loaded ? loaded.problems.map(problemLine) : []
}

/** The value that a patch has that is written so. */
function value(written: string): unknown {
  const all = patches(`envoy:\n  patches:\n    - {type: route, patch: [{op: add, path: /a, value: ${written}}]}\n`)
  const [operation] = all![0]!.operations
  return operation && 'value' in operation ? operation.value : undefined
}

test('those of the whole file come first, then those of services in their order', () => {
  expect(
    patches(`
services:
  b:
    command: [x]
    envoy:
      patches:
        - {type: cluster, for: streams, name: "b|*", patch: [{op: remove, path: /a}]}
  a: {command: [x], envoy: {patches: [{type: listener, patch: [{op: move, from: /a, path: /b~1c}]}]}}
  c: {command: [x], envoy: {}}
envoy: {patches: [{type: route, patch: [{op: test, path: "", value: null}]}]}
`),
  ).toEqual([
    {
      service: undefined,
      where: 'berth.yaml:10',
      type: 'route',
      name: undefined,
      use: undefined,
      operations: [{ op: 'test', path: '', value: null }],
    },
    {
      service: 'b',
      where: 'berth.yaml:7',
      type: 'cluster',
      name: 'b|*',
      use: 'streams',
      operations: [{ op: 'remove', path: '/a' }],
    },
    {
      service: 'a',
      where: 'berth.yaml:8',
      type: 'listener',
      name: undefined,
      use: undefined,
      operations: [{ op: 'move', from: '/a', path: '/b~1c' }],
    },
  ])
})

describe('a value', () => {
  test.for<[string, unknown]>([
    ['1', 1],
    ['"1"', '1'],
    ["'1'", '1'],
    ['1.10', 1.1],
    ['-0.5e3', -500],
    ['0x10', 16],
    ['0o17', 15],
    ['007', 7],
    ['true', true],
    ['False', false],
    ['"true"', 'true'],
    ['yes', 'yes'],
    ['on', 'on'],
    ['null', null],
    ['~', null],
    ['', null],
    ['"null"', 'null'],
    ['5s', '5s'],
    ['2026-07-28', '2026-07-28'],
    ['9007199254740991', 9007199254740991],
    ['18446744073709551615', '18446744073709551615'],
    ['.inf', 'Infinity'],
    ['-.inf', '-Infinity'],
    ['.nan', 'NaN'],
    ['[1, "1", {a: true, "b c": ~}]', [1, '1', { a: true, 'b c': null }]],
    ['{"@type": type.googleapis.com/x.Y, 1: 2}', { '@type': 'type.googleapis.com/x.Y', '1': 2 }],
  ])('%s', ([written, expected]) => {
    expect(value(written)).toEqual(expected)
  })

  test('may be several lines, and come from an anchor', () => {
    const text = `
services: {a: {command: &words [echo, 1]}}
envoy:
  patches:
    - type: route
      patch:
        - op: add
          path: /a
          value: |
            one
            2
        - {op: add, path: /b, value: *words}
`
    const [a, b] = patches(text)![0]!.operations
    expect(a).toMatchObject({ value: 'one\n2\n' })
    expect(b).toMatchObject({ value: ['echo', 1] })
  })

  test('of JSON is as JSON has it', () => {
    const written = {
      services: {},
      envoy: { patches: [{ type: 'route', patch: [{ op: 'add', path: '/a', value: [1, '1', null, true, 1e3] }] }] },
    }
    expect(patches(JSON.stringify(written))![0]!.operations[0]).toMatchObject({ value: [1, '1', null, true, 1000] })
  })

  test('does not make text of other settings anything else', () => {
    const loaded = load(
      'services: {a: {command: [x, 1.10, true], envoy: {patches: [{type: route, patch: [{op: add, path: /a, value: 1.10}]}]}}}',
    )
    if ('problems' in loaded) throw new Error('does not load')
    expect(loaded.config.services[0]!.backend).toMatchObject({ command: ['x', '1.10', 'true'] })
  })
})

test('all mistakes are told, with what to write', () => {
  const text = `
services:
  a:
    command: [x]
    envoy:
      patches:
        - {type: listner, patch: [{op: add, path: /a, value: 1}]}
        - {type: route, for: streams, patch: [{op: add, path: a}]}
        - {type: cluster, patch: []}
        - {type: cluster, patch: [{op: remove, path: /a, value: 1}, {op: copy, path: /a~2}, {op: ad, path: /a}]}
        - {type: route, name: "a b", patch: [{op: add, path: /a, value: 1, comment: x}]}
envoy: {patch: []}
`
  expect(wrong(text)).toMatchInlineSnapshot(`
    [
      "berth.yaml:7: service a: \`envoy.patches[0].type\` must be one of \`listener\`, \`route\`, \`cluster\`, not \`listner\`. Did you mean \`listener\`?",
      "berth.yaml:8: service a: \`envoy.patches[1].for\` goes with \`type: cluster\` only. Remove it.",
      "berth.yaml:8: service a: \`envoy.patches[1].patch[0].value\` is missing, which \`op: add\` needs. Write it.",
      "berth.yaml:8: service a: \`envoy.patches[1].patch[0].path\` is no JSON pointer. Write /key/0/key, with ~1 for a / and ~0 for a ~ within a key.",
      "berth.yaml:9: service a: \`envoy.patches[2].patch\` is empty. Write operations: [{op: add, path: /…, value: …}].",
      "berth.yaml:10: service a: \`envoy.patches[3].patch[0].value\` does not go with \`op: remove\`. Remove it.",
      "berth.yaml:10: service a: \`envoy.patches[3].patch[1].from\` is missing, which \`op: copy\` needs. Write it.",
      "berth.yaml:10: service a: \`envoy.patches[3].patch[1].path\` is no JSON pointer. Write /key/0/key, with ~1 for a / and ~0 for a ~ within a key.",
      "berth.yaml:10: service a: \`envoy.patches[3].patch[2].op\` must be one of \`add\`, \`remove\`, \`replace\`, \`move\`, \`copy\`, \`test\`, not \`ad\`. Did you mean \`add\`?",
      "berth.yaml:11: service a: \`envoy.patches[4].name\` is no pattern over names. Write a service, or service|client for clusters, with * for any part.",
      "berth.yaml:11: service a: \`envoy.patches[4].patch[0].comment\` is not a known key. Known here: op, path, from, value.",
      "berth.yaml:12: configuration: \`envoy.patch\` is not a known key. Did you mean \`patches\`?",
    ]
  `)
})

test('a manifest has none: whoever sends it has no say in what Envoy opens', () => {
  const envoy = { patches: [{ type: 'listener', patch: [{ op: 'remove', path: '/a' }] }] }
  const manifest = { services: { a: { image: 'x', envoy } } }
  const around = { roots: ['/etc/berth'], own: [], config: undefined }
  const loaded = loadManifest({ text: JSON.stringify(manifest), file: 'm.json', folder: '/etc/berth' }, around)
  expect(loaded).toEqual({
    problems: [
      expect.objectContaining({
        about: 'service a',
        message: '`envoy.patches` could have Envoy open files or connections of this machine.',
      }),
    ],
  })
})
