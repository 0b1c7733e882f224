// The configuration that compose.yml serves fits it.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { parse } from 'yaml'
import { loadConfig } from '../../src/config/load.ts'

const ROOT = join(import.meta.dirname, '../..')
const FOLDER = 'src/catalog/compose'

test('it loads, and has the ports and names of compose.yml', () => {
  const compose = readFileSync(join(ROOT, 'compose.yml'), 'utf8')
  const text = readFileSync(join(ROOT, FOLDER, 'berth.yaml'), 'utf8')
  const loaded = loadConfig({ text, file: 'berth.yaml', folder: '/etc/berth' })
  if ('problems' in loaded) throw new Error(loaded.problems.map(({ message }) => message).join('\n'))
  const { ports, engines, consul, bind } = loaded.config
  const defaults = new Map([...compose.matchAll(/\$\{(BERTH_\w+):-([^}]*)\}/g)].map(([, name, value]) => [name, value]))
  expect(Object.fromEntries(defaults)).toMatchObject({
    BERTH_SERVICE_PORTS: `${ports.services.from}-${ports.services.to}`,
    BERTH_GATEWAY_PORT: String(ports.gateway),
    BERTH_API_PORT: String(ports.api),
    BERTH_FOLDER: `./${FOLDER}`,
    BERTH_SUBNET: '172.30.0.0/16',
    BERTH_DIND_PORT: '12376',
    BERTH_CONSUL_PORT: '10006',
  })
  const { services } = parse(compose, { merge: true }) as { services: Record<string, { ports?: string[] }> }
  expect(bind).toBe('0.0.0.0')
  expect(engines).toEqual([{ name: 'dind', host: 'dind', port: 2376, tls: '/certs/client' }])
  expect(consul).toBe('consul:8500')
  expect(Object.keys(services)).toEqual(['prepare', 'control-plane', 'envoy', 'dind', 'consul'])
  for (const each of Object.values(services).flatMap(({ ports = [] }) => ports)) expect(each).toMatch(/^127\.0\.0\.1:/)
})
