// The shape of the configuration file: Berth's own keys and the two foreign shapes (contract, "Configuration").
// Rules between values are in rules.ts.

import { isIP } from 'node:net'

import { z } from 'zod'
import {
  command,
  cores,
  duration,
  durationOrNone,
  filled,
  glob,
  integer,
  mistake,
  oneOf,
  origin,
  percentage,
  port,
  portRange,
  size,
  toolGlobs,
  variable,
  volume,
  yesOrNo,
} from './scalars.ts'
import { parseSshHost, type WrittenEngine } from '../model/engine.ts'
import { SECRET_NAME, SECRET_NAME_WORDS } from '../model/secret.ts'
import { authSchema, serviceAuth } from './auth.ts'
import { patches } from './patches.ts'
import { keys, optional } from './shape.ts'
import { clientPace, foreignPace, foreignResources, tier, toolLimits } from './tiers.ts'
import { globalTuning, serviceTuning } from './tuning.ts'
import { splitWords } from './words.ts'

const optionalText = optional(filled)

/** Environment variables by name. */
function byVariable<T extends z.ZodType>(schema: T) {
  return z.record(z.string(), schema)
}

const secret = keys({
  env: optionalText,
  file: optionalText,
  exec: optional(command),
  store: optional(z.string().regex(SECRET_NAME, mistake('is no name of a secret.', `Use ${SECRET_NAME_WORDS}.`))),
}).refine(
  (source) => Object.values(source).filter((value) => value !== undefined).length === 1,
  mistake(
    'must say where the value comes from, once.',
    'Write one of {env: NAME}, {file: path}, {exec: [program]}, {store: NAME}.',
  ),
)

const limits = keys({
  concurrency: optional(integer(1, 1000)),
  queue: optional(integer(0, 10_000)),
  timeout: optional(duration('100ms', '24h')),
  message: optional(size('1KB', '256MB')),
})

/** What a version may have otherwise than the service. */
const version = { image: optionalText, command: optional(command), env: optional(byVariable(variable)) }

const release = keys({
  canary: optional(keys({ ...version, weight: optional(integer(0, 100)), warm: optional(yesOrNo) })),
  mirror: optional(keys({ ...version, percent: optional(integer(1, 100)) })),
  rollback: optional(keys({ error_rate: optional(percentage), requests: optional(integer(1, 1_000_000)) })),
  drain: optional(duration('0s', '24h')),
})

const service = keys({
  command: optional(command),
  image: optionalText,
  runtime: optional(oneOf('auto', 'dind', 'docker', 'process')),
  isolation: optional(oneOf('session', 'client', 'shared')),
  port: optional(port),
  era: optional(oneOf('auto', 'legacy', 'modern', 'dual')),
  sse: optional(yesOrNo),
  env: optional(byVariable(variable)),
  secrets: optional(byVariable(secret)),
  volumes: optional(z.array(volume)),
  network: optionalText,
  resources: optional(
    keys({ cpu: optional(cores), memory: optional(size('4MB', '1024GB')), pids: optional(integer(1, 1_000_000)) }),
  ),
  scale: optional(
    keys({
      min: optional(integer(0, 1000)),
      max: optional(integer(1, 1000)),
      idle: optional(duration('1s', '7d')),
      streams: optional(oneOf('keep', 'ignore')),
      start: optional(duration('1s', '1h')),
      warm: optional(integer(0, 1000)),
    }),
  ),
  limits: optional(limits),
  tools: optional(keys({ allow: optional(toolGlobs), deny: optional(toolGlobs) })),
  origins: optional(z.array(origin).max(100)),
  clients: optional(z.array(glob)),
  auth: optional(serviceAuth),
  release: optional(release),
  envoy: optional(keys({ ...serviceTuning, patches })),
})

const client = keys({
  tier: optionalText,
  ...clientPace,
  limits: optional(toolLimits),
  services: optional(z.array(glob)),
  tools: optional(z.record(z.string(), toolGlobs)),
})

/** Where an engine listens. */
const engineHost = z
  .string()
  .transform((text, context): Pick<WrittenEngine, 'socketPath' | 'host' | 'port' | 'ssh'> => {
    const ssh = parseSshHost(text)
    if (ssh) return { ssh }
    if (/^unix:\/\/\/[^\0]+$/.test(text)) return { socketPath: text.slice('unix://'.length) }
    const tcp = /^tcp:\/\/(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::(\d{1,5}))?\/?$/.exec(text)
    const number = Number(tcp?.[3] ?? 2375)
    if (tcp && number >= 1 && number <= 65_535) return { host: (tcp[1] ?? tcp[2])!, port: number }
    // The address is not shown: people write passwords into addresses.
    context.addIssue({
      code: 'custom',
      message: mistake(
        'is no address of a Docker engine.',
        'Write unix:///path/of/docker.sock, tcp://host:port or ssh://user@host.',
      ),
    })
    return z.NEVER
  })

const engine = keys({
  name: z
    .string()
    .regex(
      /^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$/,
      mistake('is no name for an engine.', 'Use letters, digits and hyphens.'),
    ),
  managed: optional(yesOrNo),
  image: optionalText,
  plain: optional(yesOrNo),
  host: optional(engineHost),
  tls: optionalText,
})

/** Where a Consul agent's HTTP API is; its usual port is put behind a host alone. */
const agentAddress = z.string().transform((text, context): string => {
  const match = /^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?$/.exec(text)
  const number = Number(match?.[2] ?? 8500)
  if (match && number >= 1 && number <= 65_535) return `${match[1]}:${number}`
  context.addIssue({
    code: 'custom',
    message: mistake('is no address of a Consul agent.', 'Write host:port, such as 127.0.0.1:8500.'),
  })
  return z.NEVER
})

/** Which of these addresses need more words is in rules.ts. */
const address = z
  .string()
  .refine(
    (text) => isIP(text) !== 0 && !text.includes('%'),
    mistake('must be an address, not a name.', 'Write 127.0.0.1.'),
  )

const mcpServer = keys({
  command: z
    .string()
    .min(1, mistake('is empty.', 'Write the program to start.'))
    .refine((text) => !text.includes('\0'), mistake('holds a NUL character.', 'Remove it.'))
    .nullish(),
  args: optional(z.array(variable)),
  env: optional(byVariable(variable)),
  cwd: optionalText,
  type: optional(z.string()),
  disabled: optional(yesOrNo),
  url: z.unknown().optional(),
  headers: z.unknown().optional(),
})

/** A command as a list, or as one line that is split into words. */
const wrapper = z.preprocess((value, context) => {
  if (typeof value !== 'string') return value
  const split = splitWords(value)
  if ('words' in split) return split.words
  context.addIssue({ code: 'custom', message: mistake(`${split.error}.`, 'Write it as [program, argument, ...].') })
  return z.NEVER
}, optional(command))

const wrapped = keys({
  name: z.string(),
  wrapper,
  port: optional(port),
  // Read and not used: Envoy and the adapter watch the process themselves.
  health_check_path: optionalText,
  resource_limits: optional(foreignResources),
})

const wrappedClient = keys({
  tier: optionalText,
  ...foreignPace,
})

const ports = keys({
  services: optional(portRange),
  gateway: optional(port),
  api: optional(port),
  dashboard: optional(port),
  metrics: optional(port),
  grace: optional(duration('0s', '7d')),
})

/** A whole file. Every scalar comes in as text, an empty one as null (yaml-source.ts). */
export const file = optional(
  keys({
    services: optional(z.record(z.string(), service)),
    mcpServers: optional(z.record(z.string(), mcpServer)),
    mcp: optional(
      keys({
        services: optional(z.array(wrapped)),
        clients: optional(z.record(z.string(), optional(wrappedClient))),
      }),
    ),
    clients: optional(z.record(z.string(), optional(client))),
    tiers: optional(z.record(z.string(), optional(tier))),
    auth: optional(authSchema(secret)),
    docker: optional(z.array(engine)),
    consul: optional(keys({ address: optional(agentAddress) })),
    records: optional(keys({ keep: optional(durationOrNone('1h', '365d')) })),
    ports: optional(ports),
    bind: optional(address),
    envoy: optional(keys({ ...globalTuning, patches })),
  }),
)

export type File = Partial<NonNullable<z.output<typeof file>>>
export type WrittenService = NonNullable<File['services']>[string]
export type WrittenSecret = NonNullable<WrittenService['secrets']>[string]
