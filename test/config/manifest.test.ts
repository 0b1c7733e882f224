import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'

import { CATALOG } from '../../src/catalog/entries.ts'
import { manifestOfEntry, manifestOfImage } from '../../src/catalog/manifest.ts'
import { imageOf } from '../../src/catalog/recipe.ts'
import { loadConfig } from '../../src/config/load.ts'
import { loadManifest, manifestOf, within } from '../../src/config/manifest.ts'
import { defaultDefinition, volumesOf } from '../../src/docker/dind-definition.ts'
import { problemLine } from '../../src/model/problem.ts'
import type { ImageBackend } from '../../src/model/service.ts'

const SHIPPED = join(import.meta.dirname, '..', '..', 'src', 'catalog', 'manifests')

const loaded = loadConfig({ text: 'clients: {alice: {}}', file: 'berth.yaml', folder: '/srv/app' })
if (!('config' in loaded)) throw new Error('the configuration of this test is wrong')
const around = {
  config: loaded.config,
  roots: ['/srv/app', '/berth/files'],
  own: ['/srv/app/state', '/srv/app/berth.yaml'],
}

function load(text: string) {
  return loadManifest({ text, file: 'm.yaml', folder: '/srv/app' }, around)
}

function services(text: string) {
  const found = load(text)
  if ('problems' in found) throw new Error(found.problems.map(problemLine).join('\n'))
  return found.services
}

function mistakes(text: string): string[] {
  const found = load(text)
  return 'problems' in found ? found.problems.map(problemLine) : []
}

describe('what a manifest says', () => {
  test('other versions of a service run in containers, too, and in none of this machine’s folders', () => {
    const [found] = services('services: {a: {image: mcp/a, command: [x], release: {canary: {image: "mcp/a:2"}}}}')
    const backend = found!.service.release?.canary?.backend as ImageBackend
    expect(backend).toMatchObject({ kind: 'image', image: 'mcp/a:2', cwd: '/', runtimes: ['dind', 'docker'] })
    expect(mistakes('services: {a: {image: mcp/a, release: {canary: {weight: 5}}}}')).toEqual([
      expect.stringContaining('is the same as the service itself'),
    ])
  })

  test('a service may need tokens where Berth checks them', () => {
    const text = 'services: {a: {image: mcp/a, auth: jwt}}'
    const withAuth = loadConfig({ text: 'auth: {mode: optional}', file: 'berth.yaml', folder: '/srv/app' })
    if (!('config' in withAuth)) throw new Error('the configuration of this test is wrong')
    const found = loadManifest({ text, file: 'm.yaml', folder: '/srv/app' }, { ...around, config: withAuth.config })
    expect(found).toMatchObject({ services: [{ service: { auth: 'jwt' } }] })
    expect(mistakes(text)).toEqual([expect.stringContaining('asks for what nobody checks')])
  })

  test("Compose's keys and Berth's own mean the same, and give the same definition", () => {
    const own = services(`services:
  a:
    image: mcp/a
    command: [serve, --fast]
    env: {A: "1", B: two}
    network: bridge
    volumes: [data:/data, ./files:/files:ro]
    resources: {cpu: 0.5, memory: 512MiB, pids: 64}`)
    const compose = services(`name: x
version: "3"
services:
  a:
    image: mcp/a
    command: serve --fast
    environment: [A=1, B=two]
    network_mode: bridge
    volumes: [data:/data, ./files:/files:ro]
    stdin_open: true
    tty: false
    restart: unless-stopped
    deploy: {resources: {limits: {cpus: 0.5, memory: 512m, pids: 64}}}`)
    expect(compose[0]!.definition).toBe(own[0]!.definition)
    expect({ ...compose[0]!.service, where: '' }).toEqual({ ...own[0]!.service, where: '' })
    const { source, backend } = own[0]!.service
    expect(source).toBe('deployed')
    expect(backend as ImageBackend).toMatchObject({
      command: ['serve', '--fast'],
      runtimes: ['dind', 'docker'],
      volumes: [
        { source: 'data', target: '/data', readOnly: false },
        { source: '/srv/app/files', target: '/files', readOnly: true },
      ],
      resources: { cpus: 0.5, memoryBytes: 512 * 1024 ** 2, pids: 64 },
    })
  })

  test("the sign $ is written twice in Compose's variables, and once in Berth's own", () => {
    const envs = services(
      'services: {a: {image: x, environment: {A: "$${b}$$1$"}}, b: {image: x, env: {A: "${b}$1$"}}}',
    )
    expect(envs.map(({ service }) => (service.backend as ImageBackend).env)).toEqual([
      { A: '${b}$1$' },
      { A: '${b}$1$' },
    ])
  })

  test('a definition says everything, whatever the order of its keys', () => {
    const [a] = services('services: {a: {image: x, env: {B: "1", A: "2"}, port: null}}')
    const [b] = services('services: {a: {env: {A: "2", B: "1"}, image: x}}')
    expect(a!.definition).toBe(b!.definition)
    const [again] = services(manifestOf('a', a!.definition))
    expect({ ...again!.service, where: '' }).toEqual({ ...a!.service, where: '' })
  })

  test('what is stored makes the same service again, byte for byte, wherever the manifest was', () => {
    const written = 'image: x, env: {B: "1", A: "2"}, secrets: {D: {env: X}, C: {env: Y}}, resources: {pids: 9, cpu: 1}'
    const [first] = services(`services: {a: {${written}}}`)
    const again = loadManifest({ text: manifestOf('a', first!.definition), file: 'x', folder: '/elsewhere' }, around)
    const backends = [first, ...('services' in again ? again.services : [])].map((each) => each!.service.backend)
    expect(JSON.stringify(backends[1])).toBe(JSON.stringify(backends[0]))
  })

  test.each(readdirSync(SHIPPED))('%s is right, and its image is that of the catalog', (file) => {
    const [found, ...more] = services(readFileSync(join(SHIPPED, file), 'utf8'))
    expect(more).toEqual([])
    const { image, network } = found!.service.backend as ImageBackend
    const entry = CATALOG.find((each) => imageOf(each) === image)
    expect(entry).toBeDefined()
    expect(network).toBe(entry!.network.mode)
    expect(found!.service.isolation).toBe(entry!.isolation.advice)
    expect(Object.keys((found!.service.backend as ImageBackend).secrets)).toEqual(
      entry!.secrets.filter(({ required }) => required).map(({ name }) => name),
    )
  })

  test('there is one for postgres, files and http', () => {
    expect(readdirSync(SHIPPED).toSorted()).toEqual(['files.yaml', 'http.yaml', 'postgres.yaml'])
  })

  test.each(CATALOG.map((entry) => [entry.name, entry] as const))('the catalog’s %s can be deployed', (name, entry) => {
    expect(services(manifestOfEntry(entry)).map(({ service }) => service.name)).toEqual([name])
    expect(services(manifestOfEntry(entry, 'other'))[0]!.service.name).toBe('other')
  })

  test.each([
    ['mcp/time', 'time'],
    ['registry:5000/mcp/File_System:2', 'file-system'],
    ['mcp/a.b@sha256:00ff', 'a-b'],
  ])('the image %s makes a service %s', (image, name) => {
    const [found] = services(manifestOfImage(image))
    expect(found!.service).toMatchObject({ name, backend: { image } })
  })
})

describe('mistakes', () => {
  test.each([
    ['nothing', '', 'm.yaml:1: configuration: `services` is missing or empty: there is nothing to deploy.'],
    ['no services', 'services: {}', '`services` is missing or empty'],
    ['a syntax error', 'services: {a: [}', 'm.yaml:1: '],
    ['another section', 'services: {a: {image: x}}\nclients: {a: {}}', 'm.yaml:2: .*`clients` does not belong'],
    [
      'an unknown key',
      'services:\n  a:\n    image: x\n    imge: y',
      'm.yaml:4: service a: `imge` is not a known key. Did you mean `image`',
    ],
    ['no name', 'services:\n  A_b: {image: x}', 'm.yaml:2: service A_b: .*no service name.*Call it `a-b`'],
    ['no image', 'services: {a: {command: [npx]}}', '`image` is missing: what is deployed runs in a container'],
    ['neither', 'services: {a: {}}', '`command` is missing: nothing says what to start'],
    ['a local process', 'services: {a: {image: x, command: [y], runtime: process}}', '`runtime` is `process`'],
    [
      'a volume elsewhere',
      'services:\n  a:\n    image: x\n    volumes: [/srv:/data]',
      'm.yaml:4: .*`volumes\\[0\\]` is outside the allowed folders. Use a folder in /srv/app or /berth/files',
    ],
    ['a volume above', 'services: {a: {image: x, volumes: ["../x:/data"]}}', 'outside the allowed folders'],
    ['what is hidden', 'services: {a: {image: x, volumes: ["./.berth:/data"]}}', 'outside the allowed folders'],
    [
      'the folder of the configuration',
      'services: {a: {image: x, volumes: [".:/data"]}}',
      "`volumes\\[0\\]` is or holds Berth's own files",
    ],
    ['the state folder', 'services: {a: {image: x, volumes: ["./state/logs:/data:ro"]}}', "is or holds Berth's own"],
    [
      'the configuration',
      'services: {a: {image: x, secrets: {K: {file: berth.yaml}}}}',
      "`secrets.K.file` is or holds Berth's own",
    ],
    [
      'a key of Berth',
      'services: {a: {image: x, secrets: {K: {env: MCP_ENCRYPTION_KEY}}}}',
      '`secrets.K.env` names a variable that is for Berth itself',
    ],
    [
      'the keys of the engine',
      `services: {a: {image: x, volumes: ["${volumesOf(defaultDefinition('n', {}))[1]!.name}:/data"]}}`,
      "`volumes\\[0\\]` belongs to Berth's own engine",
    ],
    [
      'no path',
      `services: {a: {image: x, volumes: ["./${'x/'.repeat(3000)}:/data"]}}`,
      '`volumes\\[0\\]` is longer than any path',
    ],
    [
      'the network of the machine',
      'services:\n  a:\n    image: x\n    network_mode: host',
      'm.yaml:4: .*`network_mode` would be that of the machine',
    ],
    ['another network', 'services: {a: {image: x, network: "container:b"}}', '`network` would be that of .* another'],
    [
      'a file of this machine for Envoy',
      'services: {a: {image: x, envoy: {access_log: [{file: /etc/cron.d/x}]}}}',
      '`envoy.access_log` would have Envoy open files',
    ],
    [
      'a certificate of this machine',
      'services: {a: {image: x, envoy: {tls: {certificate: a, key: b}}}}',
      '`envoy.tls` would have Envoy open files',
    ],
    [
      'a secret file elsewhere',
      'services: {a: {image: x, secrets: {K: {file: /etc/shadow}}}}',
      '`secrets.K.file` is outside',
    ],
    ['a program', 'services: {a: {image: x, secrets: {K: {exec: [id]}}}}', '`secrets.K.exec` would run a program'],
    ['no client', 'services: {a: {image: x, clients: [bob]}}', 'names no client: `bob`'],
    ['a port elsewhere', 'services: {a: {image: x, port: 80}}', '`port` is 80, outside the range of services'],
    [
      'a terminal',
      'services:\n  a:\n    image: x\n    tty: true',
      'm.yaml:4: .*`tty` cannot be had. Remove it: containers of Berth always have `tty: false`',
    ],
    ['rights', 'services: {a: {image: x, privileged: true}}', '`privileged` cannot be had'],
    ['more rights', 'services: {a: {image: x, cap_add: [ALL]}}', '`cap_add` is not a known key'],
    [
      'both words',
      'services: {a: {image: x, env: {A: b}, environment: {A: c}}}',
      '`environment` says the same as `env`',
    ],
    [
      'a variable without value',
      'services:\n  a:\n    image: x\n    environment: [A]',
      'm.yaml:4: .*`environment.A` has no value',
    ],
    [
      'a variable of Compose',
      'services:\n  a:\n    image: x\n    environment: {A: b, KEY: "${KEY:-none}"}',
      'm.yaml:4: .*`environment.KEY` names a variable, which nobody fills in',
    ],
    ['one in a list', 'services: {a: {image: x, environment: ["KEY=$OTHER"]}}', '`environment.KEY` names a variable'],
    ['a broken command', 'services: {a: {image: x, command: "a \'b"}}', '`command` .*quote'],
    ['a list', 'services: [a]', 'm.yaml:1: '],
    ['text', 'hello', 'm.yaml:1: '],
  ])('%s', (_, text, wanted) => {
    expect(mistakes(text).join('\n')).toMatch(new RegExp(wanted))
  })

  test('all of them at once', () => {
    expect(
      mistakes('services: {a: {image: x, port: 1, tty: true, foo: 1}, b: {runtime: process}}').length,
    ).toBeGreaterThan(3)
  })

  test('more services than anybody has', () => {
    const many = Array.from({ length: 101 }, (_, index) => `s${index}: {imge: x}`).join(', ')
    expect(mistakes(`services: {${many}}`)).toEqual([expect.stringContaining('has more than 100 services')])
  })
})

test.each([
  ['/a', true],
  ['/a/b/c', true],
  ['/a/b/..c', false],
  ['/a/.ssh/id', false],
  ['/ab', false],
  ['/', false],
])('%s is within /a: %s', (path, wanted) => {
  expect(within(path, ['/a'])).toBe(wanted)
})
