// What README.md says of the configuration is true.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { loadConfig } from '../../src/config/load.ts'

const readme = readFileSync(join(import.meta.dirname, '../../README.md'), 'utf8')
const load = (text: string) => loadConfig({ text, file: 'README.md', folder: '/etc/berth' })

test('its examples load', () => {
  const examples = [...readme.matchAll(/```yaml\n(services:.*?)```/gs)].map(([, example]) => load(example!))
  expect(examples.length).toBeGreaterThan(1)
  for (const example of examples) expect(example).toHaveProperty('config')
})

test('the defaults of releases are those of its example', () => {
  const written = /```yaml\n(services:(?:(?!```).)*release:.*?)```/s.exec(readme)![1]!
  const without = written.replace(/^ +(?:rollback|drain):.*\n/gm, '')
  expect(without).not.toBe(written)
  const release = (text: string) => {
    const loaded = load(text)
    return 'config' in loaded && loaded.config.services[0]!.release
  }
  expect(release(without)).toEqual(release(written))
})

test('the defaults of its table are those of an empty configuration', () => {
  const loaded = load('services: {a: {command: [x]}}')
  if ('problems' in loaded) throw new Error('does not load')
  const { services, ports, bind } = loaded.config
  const [service] = services
  const defaults = new Map([...readme.matchAll(/^\| `([^|]+)` \| ([^|]+) \|/gm)].map(([, key, value]) => [key, value]))
  const { limits, scale } = service!
  expect({
    isolation: defaults.get('….isolation'),
    era: defaults.get('….era'),
    sse: defaults.get('….sse'),
    concurrency: defaults.get('….limits.concurrency'),
    queue: defaults.get('….limits.queue'),
    timeout: defaults.get('….limits.timeout'),
    message: defaults.get('….limits.message'),
    max: defaults.get('….scale.max'),
    warm: defaults.get('….scale.warm'),
    services: defaults.get('ports.services'),
    gateway: defaults.get('ports.gateway'),
    api: defaults.get('ports.api'),
    others: [defaults.get('ports.metrics'), defaults.get('ports.dashboard')],
    grace: defaults.get('ports.grace'),
    bind: defaults.get('bind'),
  }).toEqual({
    isolation: `\`${service!.isolation}\``,
    era: `\`${service!.era}\``,
    sse: `\`${service!.sse}\``,
    concurrency: String(limits.concurrency),
    queue: String(limits.queue),
    timeout: `${limits.timeoutMs / 1000}s`,
    message: `${limits.messageBytes / 1e6}MB`,
    max: scale.max ?? 'none; 1 if `shared`',
    warm: String(scale.warm),
    services: `${ports.services.from}-${ports.services.to}`,
    gateway: String(ports.gateway),
    api: String(ports.api),
    others: [String(ports.metrics), String(ports.dashboard)],
    grace: `${ports.graceMs / 60_000}m`,
    bind,
  })
})
