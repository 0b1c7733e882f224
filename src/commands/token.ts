// `berth token`: tokens by which clients prove who they are. Through the running control plane, or in the state folder where
// none runs. A token is printed once, to standard output, and kept nowhere.

import { existsSync } from 'node:fs'
import { join } from 'node:path'

import type { MintedToken, RevokedTokens, TokenDesk, TokenRowShown } from '../api/tokens.ts'
import { jwtSecret } from '../auth/secret.ts'
import { DEFAULT_TTL_S, MAX_TTL_S, Tokens } from '../auth/tokens.ts'
import { readConfigFile } from '../config/file.ts'
import type { Config } from '../config/load.ts'
import { configOf } from '../follow-config.ts'
import { CLIENT_NAME } from '../model/names.ts'
import { OperatorError } from '../model/operator-error.ts'
import { problemLine } from '../model/problem.ts'
import { parseDuration } from '../model/units.ts'
import { readSecrets } from '../slots/secrets.ts'
import { KeyFile, keysOf } from '../store/encryption-keys.ts'
import { SecretStore } from '../store/secret-store.ts'
import type { Store } from '../store/store.ts'
import { createDesk } from '../token-desk.ts'
import { type CommandContext, UsageError } from './command.ts'
import { NotRunning, running, type Running } from './running.ts'
import { owned } from './secret.ts'
import { table } from './table.ts'

export const name = 'token'
export const summary = 'Make tokens for clients (mint: printed once), list them, or revoke one or all of a client.'
export const usage = '<mint|ls|revoke> [id]'
export const options = {
  client: { type: 'string', value: 'NAME', summary: 'With mint and revoke: the client.' },
  service: { type: 'string', value: 'GLOB,…', summary: 'With mint: only for these services, as they are now.' },
  ttl: { type: 'string', value: '30d', summary: 'With mint: how long it is good for.' },
} as const

/** Envoy has it long before. */
const REVOKE_MS = 20_000

/** What the actions do, whoever carries them out. */
interface Desk {
  list(): Promise<readonly TokenRowShown[]>
  mint(...request: Parameters<TokenDesk['mint']>): Promise<MintedToken>
  revoke(id: string): Promise<RevokedTokens>
  revokeAll(client: string): Promise<RevokedTokens>
  /** What is to be said of a revocation. */
  readonly note?: string
}

export async function run(context: CommandContext): Promise<number> {
  const [action, id] = context.args
  const { json, print, note } = context
  const client = text(context, 'client')
  if (action !== 'mint' && action !== 'ls' && action !== 'revoke')
    throw new UsageError(`token takes mint, ls or revoke, not ${action}.`)
  if (action !== 'revoke' && id !== undefined) throw new UsageError(`berth token ${action} takes no id.`)
  if (client !== undefined && !CLIENT_NAME.test(client)) throw new UsageError(`${client} cannot be a client's name.`)
  if (action === 'mint') {
    if (client === undefined) throw new UsageError('--client is missing: berth token mint --client NAME')
    const services = servicesOf(context)
    const request = { client, ttl_s: ttlOf(context), ...(services && { services }) }
    const minted = await (await deskOf(context)).mint(request)
    if (json) print(JSON.stringify(minted, null, 2))
    else {
      note(`Token ${minted.id} of ${client}, good until ${time(minted.expires_at)} for ${minted.audience.join(', ')}:`)
      print(minted.token)
    }
    return 0
  }
  const desk = await deskOf(context)
  if (action === 'ls') {
    const tokens = await desk.list()
    print(json ? JSON.stringify(tokens, null, 2) : tokens.length === 0 ? 'There are no tokens.' : list(tokens))
    return 0
  }
  if ((id === undefined) === (client === undefined))
    throw new UsageError('Name one token or one client: berth token revoke ID, or --client NAME')
  const answer = await (client === undefined ? desk.revoke(id!) : desk.revokeAll(client))
  print(json ? JSON.stringify(answer, null, 2) : words(answer, client))
  if (desk.note !== undefined) note(desk.note)
  return 0
}

function text({ options }: CommandContext, key: 'client' | 'service' | 'ttl'): string | undefined {
  const value = options[key]
  return typeof value === 'string' ? value : undefined
}

/** An empty variable of a script must not make a token for all of them. */
function servicesOf(context: CommandContext): string[] | undefined {
  const globs = text(context, 'service')?.split(',').filter(Boolean)
  if (globs?.length === 0) throw new UsageError('--service names no service; leave it out for all of them.')
  return globs
}

function ttlOf(context: CommandContext): number {
  const written = text(context, 'ttl')
  const seconds = written === undefined ? DEFAULT_TTL_S : Math.floor((parseDuration(written) ?? 0) / 1000)
  if (seconds >= 60 && seconds <= MAX_TTL_S) return seconds
  throw new UsageError(`--ttl is a duration from 1m to ${MAX_TTL_S / 86_400}d, such as 30d.`)
}

function list(tokens: readonly TokenRowShown[]): string {
  const rows = tokens.map((token) => [
    token.id,
    token.client ?? '(of others)',
    token.revoked_at === undefined ? 'good' : 'revoked',
    time(token.expires_at),
    token.audience.join(' '),
  ])
  return table([['ID', 'CLIENT', 'STATE', 'UNTIL', 'FOR'], ...rows])
}

function words({ revoked }: RevokedTokens, client: string | undefined): string {
  if (client === undefined) {
    const [row] = revoked
    const foreign = row?.client === null ? ' It is none of those that Berth has made.' : ''
    return `${row?.id} is revoked.${foreign}`
  }
  return `All tokens of ${client} are revoked${revoked.length === 0 ? '' : `, ${revoked.length} of them good until now`}.`
}

function time(instant: string): string {
  return `${instant.slice(0, 16).replace('T', ' ')} UTC`
}

async function deskOf(context: CommandContext): Promise<Desk> {
  try {
    const found = await running(context)
    // Only an answer shows whether it still runs, and what comes next is not to be tried twice.
    const tokens = await found.get<readonly TokenRowShown[]>('tokens')
    return overApi(found, tokens)
  } catch (error) {
    if (error instanceof NotRunning) return inFolder(context)
    throw error
  }
}

function overApi({ post, remove }: Running, tokens: readonly TokenRowShown[]): Desk {
  return {
    list: () => Promise.resolve(tokens),
    mint: (request) => post('tokens', request, REVOKE_MS),
    revoke: (id) => remove(`tokens/${encodeURIComponent(id)}`),
    revokeAll: (client) => remove(`tokens?client=${encodeURIComponent(client)}`),
  }
}

/** Directly, where nobody runs: what is there is owned meanwhile, so that no control plane starts in the middle. */
async function inFolder(context: CommandContext): Promise<Desk> {
  const { home } = context
  const work = <T>(what: (desk: TokenDesk) => T, store: Store, config?: Config, secret?: Buffer): T =>
    what(
      createDesk({
        tokens: new Tokens(store.tokens, Date.now),
        keys: () => (config?.auth && secret ? { config: config.auth, secret } : undefined),
        world: () => ({
          gatewayPort: config?.ports.gateway ?? 0,
          services: [...new Set([...(config?.services ?? []), ...store.services()].map(serviceName))],
          clients: config?.clients.map((client) => client.name) ?? [],
        }),
        revoked: () => Promise.resolve(),
      }),
    )
  const inOwned = <T>(what: (desk: TokenDesk) => T): T => owned(home, (store) => work(what, store))
  return {
    list: async () => (existsSync(join(home, 'berth.db')) ? inOwned((desk) => desk.list()) : []),
    async mint(request) {
      const config = await configIn(context)
      const secret = config.auth && (await secretIn(context, config.auth))
      return owned(home, (store) => work((desk) => desk.mint(request), store, config, secret))
    },
    revoke: (id) => inOwned((desk) => desk.revoke(id)),
    revokeAll: (client) => inOwned((desk) => desk.revokeAll(client)),
    note: 'Berth is not running: an Envoy that goes on alone hears of it when Berth starts.',
  }
}

function serviceName(service: { readonly name: string } | { readonly service: string }): string {
  return 'name' in service ? service.name : service.service
}

async function configIn({ config: file }: CommandContext): Promise<Config> {
  if (!file) throw new OperatorError('There is no configuration here, so nobody is asked for a token. Name it with -c.')
  const state = await readConfigFile(file)
  if ('problem' in state) throw new OperatorError(problemLine(state.problem))
  return configOf({ text: state.text, file: file.name, folder: file.folder })
}

async function secretIn({ home, env }: CommandContext, auth: NonNullable<Config['auth']>): Promise<Buffer> {
  const stored = (name: string): string =>
    owned(home, (store) => new SecretStore(store.secrets, new KeyFile(home), keysOf(env)).value(name))
  try {
    return await jwtSecret(auth, home, env, async (source, cwd) => {
      const { tokens = '' } = await readSecrets({ tokens: source }, cwd, env, stored)
      return tokens
    })
  } catch (error) {
    throw new OperatorError(`The secret of tokens cannot be used: ${(error as Error).message}.`, { cause: error })
  }
}
