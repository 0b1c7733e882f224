// Every setting of a service, and one change of each: what `changes.test.ts` tries.

import { KNOBS, type Knob } from '../../src/model/knobs.ts'

/** A change of a setting: both forms are added to the service, or the configuration, that all start from. */
export interface Change {
  /** The setting, as a path from the top of the configuration. */
  readonly key: string
  readonly from?: object
  readonly to: object
  /** Its address goes: of the gateway, where it is none of a service. */
  readonly moves?: boolean
  /** It is known that its streams end. */
  readonly drains?: boolean
  /** For the table. */
  readonly note?: string
}

export interface Materials {
  /** A server that does what the first one does. */
  readonly command: readonly string[]
  /** The service in a container, and another image of the same content. */
  readonly inContainer: { readonly image: string; readonly command: readonly string[] }
  readonly image: string
  readonly secretFile: string
  /** It and the next one are free. */
  readonly port: number
}

export function serviceChanges({ command, inContainer, image, secretFile, port }: Materials): Change[] {
  const container = (key: string, to: object): Change => ({ key, from: inContainer, to: { ...inContainer, ...to } })
  return [
    { key: 'command', to: { command } },
    container('image', { image }),
    container('runtime', { runtime: 'process' }),
    { key: 'isolation', to: { isolation: 'client' } },
    { key: 'port', from: { port }, to: { port: port + 1 }, moves: true, note: 'the old port closes' },
    { key: 'era', to: { era: 'legacy' } },
    { key: 'sse', to: { sse: true } },
    { key: 'env', to: { env: { CHANGED: '1' } } },
    { key: 'secrets.*.env', to: { secrets: { TOKEN: { env: 'PATH' } } } },
    { key: 'secrets.*.file', to: { secrets: { TOKEN: { file: secretFile } } } },
    { key: 'secrets.*.exec', to: { secrets: { TOKEN: { exec: ['echo', '1'] } } } },
    { key: 'secrets.*.store', to: { secrets: { TOKEN: { store: 'TOKEN' } } } },
    container('volumes', { volumes: ['data:/data'] }),
    container('network', { network: 'bridge' }),
    container('resources.cpu', { resources: { cpu: '0.5' } }),
    container('resources.memory', { resources: { memory: '64MB' } }),
    container('resources.pids', { resources: { pids: 100 } }),
    { key: 'scale.max', to: { scale: { max: 3 } } },
    { key: 'scale.warm', to: { scale: { warm: 1 } } },
    { key: 'scale.min', to: { scale: { min: 1 } } },
    { key: 'scale.idle', to: { scale: { idle: '1h' } } },
    { key: 'scale.streams', from: { scale: { idle: '1h' } }, to: { scale: { idle: '1h', streams: 'ignore' } } },
    { key: 'scale.start', to: { scale: { start: '30s' } } },
    { key: 'limits.concurrency', to: { limits: { concurrency: 3 } } },
    { key: 'limits.queue', to: { limits: { queue: 3 } } },
    { key: 'limits.timeout', to: { limits: { timeout: '50s' } } },
    { key: 'limits.message', to: { limits: { message: '1MB' } } },
    { key: 'tools.allow', to: { tools: { allow: ['e*'] } } },
    { key: 'tools.deny', to: { tools: { deny: ['delete*'] } } },
    { key: 'origins', to: { origins: ['https://pages.example'] } },
    { key: 'clients', to: { clients: ['codex', 'gemini'] } },
    {
      key: 'release',
      from: { release: { canary: { command, weight: 0 } } },
      to: {
        release: {
          canary: { command, weight: 100 },
          mirror: { env: { CHANGED: '1' } },
          rollback: { error_rate: '50%' },
          drain: '1h',
        },
      },
      note: 'a version whose definition is changed or removed takes its own sessions with it',
    },
    ...KNOBS.filter(({ key, lives }) => lives !== 'process' && !(key in UNTRIED_KNOBS)).map((knob) => ({
      key: `envoy.${knob.key}`,
      from: { envoy: BESIDE[knob.key] ?? {} },
      to: { envoy: written(knob) },
      drains: knob.effect === 'drains',
    })),
    { key: 'envoy.patches (route)', to: patched('route', '/most_specific_header_mutations_wins', true) },
    { key: 'envoy.patches (cluster)', to: patched('cluster', '/per_connection_buffer_limit_bytes', 65_536) },
    { key: 'envoy.patches (listener)', to: patched('listener', '/stat_prefix', 'patched'), drains: true },
  ].map(({ key, ...rest }) => ({ key: `services.*.${key}`, ...rest }))
}

/** Knobs that need another one beside them. */
const BESIDE: Readonly<Record<string, object>> = {
  'retries.per_try_timeout': { retries: { may_repeat_effects: true } },
  'tracing.sampling': { tracing: { collector: 'http://127.0.0.1:9' } },
}

/** The knob with its example, beside what it needs. */
function written({ key, example }: Knob): object {
  const [group, name] = key.split('.') as [string, string?]
  const beside = BESIDE[key] as Readonly<Record<string, object>> | undefined
  return { ...beside, [group]: name === undefined ? example : { ...beside?.[group], [name]: example } }
}

function patched(type: string, path: string, value: unknown): object {
  return { envoy: { patches: [{ type, patch: [{ op: 'add', path, value }] }] } }
}

/** The clients of this test ask more often than a tier lets them. */
const OFTEN = { requests_per_minute: 'unlimited' }

/** Settings beside the services, changed one after another. `port`: one that is free. */
export function globalChanges(port: number, services: string, docker: readonly object[]): Change[] {
  return [
    { key: 'clients.*.services', to: { clients: { team: { tier: 'pro', services: ['s*'] } } } },
    { key: 'clients.*.tools', to: { clients: { team: { tier: 'pro', tools: { subject: ['echo'] } } } } },
    {
      key: 'clients.*.tier',
      to: { clients: { team: { tier: 'enterprise' } } },
      note: 'containers of that client whose limits come from the tier are new ones',
    },
    { key: 'clients.*.rate_limit', to: { clients: { team: { rate_limit: 'unlimited' } } } },
    { key: 'clients.*.concurrent_requests', to: { clients: { team: { concurrent_requests: 7 } } } },
    {
      key: 'clients.*.limits',
      to: {
        clients: { team: { limits: { subject: { '*': { requests_per_minute: 5000, concurrent_requests: 7 } } } } },
      },
    },
    {
      key: 'tiers.*.requests_per_minute',
      from: { tiers: { pro: { requests_per_minute: 5000 } } },
      to: { tiers: { pro: OFTEN } },
    },
    { key: 'tiers.*.concurrent_requests', to: { tiers: { pro: { ...OFTEN, concurrent_requests: 7 } } } },
    {
      key: 'tiers.*.cpu',
      to: { tiers: { pro: { ...OFTEN, cpu: '1.5' } } },
      note: 'containers whose limits come from the tier are new ones',
    },
    {
      key: 'tiers.*.memory',
      to: { tiers: { pro: { ...OFTEN, memory: '1GB' } } },
      note: 'containers whose limits come from the tier are new ones',
    },
    { key: 'docker', to: { docker: [...docker, { name: 'away', host: 'unix:///nonexistent/docker.sock' }] } },
    { key: 'consul.address', to: { consul: { address: `127.0.0.1:${port}` } } },
    { key: 'records.keep', to: { records: { keep: '1d' } }, note: 'to and from `none` every listener drains' },
    { key: 'ports.grace', to: { ports: { grace: '1h' } } },
    { key: 'ports.api', to: { ports: { api: port } }, note: 'told as a problem; it takes a new start' },
    { key: 'ports.dashboard', to: { ports: { dashboard: port } } },
    { key: 'ports.metrics', to: { ports: { metrics: port } } },
    { key: 'ports.services', to: { ports: { services } }, note: 'of services outside of it the old port closes' },
    { key: 'ports.gateway', to: { ports: { gateway: port } }, moves: true, note: 'the old port closes' },
  ]
}

/** Settings of authentication, where clients may do without a token; each is added to that. */
export function authChanges(secretFile: string, keysFile: string): Change[] {
  const jwt = (key: string, value: unknown): Change => ({
    key: `auth.jwt.${key}`,
    to: { auth: { mode: 'optional', jwt: { [key]: value } } },
  })
  return [
    { ...jwt('secret', { file: secretFile }), note: 'tokens signed with the one before are refused' },
    jwt('jwks', { file: keysFile }),
    jwt('issuer', 'https://issuer.example'),
    jwt('audience', 'mcp'),
    jwt('claim', 'client'),
  ]
}

/** Those of a service that change what the test's clients have to speak, or need a collector that answers. */
const UNTRIED_KNOBS: Readonly<Record<string, string>> = {
  tls: 'its listener drains, and clients have to speak TLS from then on (`test/e2e/tuning.test.ts`)',
}

/** What is not changed in the table's test, and why: one key stands for all below it. */
export const UNTRIED: Readonly<Record<string, string>> = {
  mcpServers: 'other words for `services`: as there',
  'mcp.services': 'other words for `services`: as there',
  'mcp.clients': 'other words for `clients`: as there',
  'services.*.auth':
    'hitless: only routes and the configuration of a filter change (`test/auth/bypass.test.ts`); clients without a token are refused',
  'services.*.envoy.tls': UNTRIED_KNOBS['tls']!,
  envoy:
    'as `services.*.envoy`, of all services at once, and what drains a listener drains the gateway, too (`test/compile/tuning.test.ts`); `drain` and `overload` are read when Envoy starts',
}
