// The keys that tokens are checked with: read when the configuration says so and again when they change. What cannot be
// used is told, and what was good before stays in use, also that of an earlier control plane: while whoever publishes keys
// is away, nobody is turned away who was let in before.

import { constants } from 'node:fs'
import { open } from 'node:fs/promises'
import { setTimeout } from 'node:timers/promises'

import type { Auth, AuthConfig } from '../model/auth.ts'
import type { Problem } from '../model/problem.ts'
import { fetchKeys, JWKS_BYTES, publicKeys } from './keys.ts'
import { idOf, jwtSecret, whereSecretIs, type ReadSecret } from './secret.ts'

export interface KeyRingOptions {
  readonly home: string
  readonly env: NodeJS.ProcessEnv
  readonly readSecret: ReadSecret
  /** Public keys that were fetched last, by URL. */
  readonly fetched: { get(url: string): string | undefined; set(url: string, jwks: string): void }
  /** Other keys are in force, or problems are different. */
  readonly changed: () => void
  readonly log: (message: string, fields?: object) => void
}

/** In milliseconds. */
const TIMES = {
  /** Files are looked at this often. */
  file: 2000,
  /** Whoever changes keys publishes the next one before it is used. */
  url: 60_000,
  /** After a failure, and twice as long after each further one, up to the above. */
  again: 1000,
  /** How long a start waits for keys that have never been there. */
  first: 3000,
}

export interface Keys {
  readonly config: AuthConfig
  readonly secret: Buffer
  readonly jwks: string | undefined
}

export class KeyRing {
  readonly #options: KeyRingOptions
  readonly #times: typeof TIMES
  #keys: Keys | undefined
  #watch = new AbortController()
  #secretProblem: Problem | undefined
  #jwksProblem: Problem | undefined
  /** The newest configuration. */
  #text: string | undefined
  /** There is a configuration before the newest. */
  #hasBefore = false
  /** Of the newest configuration: what an older one still reads does not count. */
  #turn = 0
  /** What came while its configuration was not in force yet. */
  #fresh: string | undefined

  constructor(options: KeyRingOptions, times: Partial<typeof TIMES> = {}) {
    this.#options = options
    this.#times = { ...TIMES, ...times }
  }

  /** Undefined: clients say themselves who they are. */
  get keys(): Keys | undefined {
    return this.#keys
  }

  get auth(): Omit<Auth, 'revoked' | 'nonce'> | undefined {
    if (!this.#keys) return undefined
    const { config, secret, jwks } = this.#keys
    const { mode, issuer, audience, claim } = config
    return { mode, issuer, audience, claim, jwks, secret: { id: idOf(secret), key: secret.toString('base64url') } }
  }

  problems(): Problem[] {
    return [...(this.#secretProblem ? [this.#secretProblem] : []), ...(this.#jwksProblem ? [this.#jwksProblem] : [])]
  }

  /** Resolves when the configuration is in force, or cannot be; then that is a problem, and the one before stays so. */
  async configure(config: AuthConfig | undefined): Promise<void> {
    const text = JSON.stringify(config)
    if (text !== this.#text) {
      this.#text = text
      await this.#apply(config)
    }
    this.#hasBefore = true
  }

  async #apply(config: AuthConfig | undefined): Promise<void> {
    const turn = ++this.#turn
    this.#fresh = undefined
    this.#watch.abort()
    this.#watch = new AbortController()
    const { signal } = this.#watch
    if (!config) {
      this.#keys = this.#secretProblem = this.#jwksProblem = undefined
      this.#options.changed()
      return
    }
    const secret = await this.#readSecret(config)
    if (turn !== this.#turn) return
    if (!secret) {
      this.#options.changed()
      void this.#lookAgain(config, signal)
      return
    }
    const { jwks } = config
    const known = this.#keys?.config.jwks
    const same = known !== undefined && JSON.stringify(known) === JSON.stringify(jwks)
    const before = same ? this.#keys?.jwks : jwks && 'url' in jwks ? this.#options.fetched.get(jwks.url) : undefined
    this.#jwksProblem = undefined
    const keys = { config, secret, jwks: before }
    if (jwks) {
      const first = this.#watchKeys(jwks, signal, before)
      // Whoever publishes them may be away: nobody else waits for that.
      if (before === undefined) await Promise.race([first, setTimeout(this.#times.first, undefined, { ref: false })])
      if (turn !== this.#turn) return
    }
    this.#keys = { ...keys, jwks: this.#fresh ?? before }
    this.#fresh = undefined
    this.#options.changed()
    if (whereSecretIs(config, this.#options.env) !== 'MCP_JWT_SECRET') void this.#lookAgain(config, signal)
  }

  close(): void {
    this.#turn += 1
    this.#watch.abort()
  }

  async #readSecret(config: AuthConfig): Promise<Buffer | undefined> {
    const { home, env, readSecret } = this.#options
    try {
      const secret = await jwtSecret(config, home, env, readSecret)
      this.#secretProblem = undefined
      return secret
    } catch (error) {
      this.#secretProblem = {
        about: 'authentication',
        where: whereSecretIs(config, env),
        message:
          `The secret of tokens cannot be used: ${(error as Error).message}. ${this.#hasBefore ? `${this.#keys ? 'What' : 'The configuration that'} was in force before stays so.` : ''}`.trim(),
        remedy: 'Write another one; Berth takes it up.',
      }
      return undefined
    }
  }

  /** A file with another secret is taken up; so is a secret that could not be read. Programs are not run again for that. */
  async #lookAgain(config: AuthConfig, signal: AbortSignal): Promise<void> {
    for await (const _ of ticks(this.#times.file, signal)) {
      if (config.secret?.from === 'exec' && !this.#secretProblem) continue
      const problem = JSON.stringify(this.#secretProblem)
      const secret = await this.#readSecret(config)
      if (signal.aborted) return
      if (secret && this.#keys?.config !== config) return this.#apply(config)
      if (secret && this.#keys && !secret.equals(this.#keys.secret)) {
        this.#keys = { ...this.#keys, secret }
        this.#options.log('another secret of tokens is in force', { id: idOf(secret) })
        this.#options.changed()
      } else if (JSON.stringify(this.#secretProblem) !== problem) this.#options.changed()
    }
  }

  /** Resolves after the first attempt; goes on until the signal. */
  #watchKeys(from: NonNullable<AuthConfig['jwks']>, signal: AbortSignal, before: string | undefined): Promise<void> {
    const usual = 'url' in from ? this.#times.url : this.#times.file
    let current = before
    let failures = 0
    const look = async (): Promise<void> => {
      const problem = JSON.stringify(this.#jwksProblem)
      try {
        const next = publicKeys('url' in from ? await fetchKeys(from.url, signal) : await textOf(from.path))
        if (signal.aborted) return
        failures = 0
        this.#jwksProblem = undefined
        if (next !== current) {
          current = next
          if ('url' in from) this.#options.fetched.set(from.url, next)
          this.#take(from, next)
        } else if (problem !== undefined) this.#options.changed()
      } catch (error) {
        if (signal.aborted) return
        failures += 1
        this.#jwksProblem = {
          about: 'authentication',
          where: 'auth.jwt.jwks',
          message: `The keys of ${nameOf(from)} cannot be had: ${(error as Error).message}. ${current === undefined ? 'Tokens that need them are refused.' : 'Those that were had last stay in use.'}`,
          remedy: 'Berth tries again by itself.',
        }
        if (JSON.stringify(this.#jwksProblem) !== problem) this.#options.changed()
      }
    }
    const first = look()
    const goOn = async (): Promise<void> => {
      await first
      while (!signal.aborted) {
        const wait = failures === 0 ? usual : Math.min(usual, this.#times.again * 2 ** Math.min(failures - 1, 10))
        await setTimeout(wait, undefined, { signal, ref: false }).catch(() => undefined)
        if (!signal.aborted) await look()
      }
    }
    void goOn()
    return first
  }

  #take(from: NonNullable<AuthConfig['jwks']>, jwks: string): void {
    this.#options.log('public keys are in force', { from: nameOf(from) })
    if (this.#keys?.config.jwks !== from) {
      this.#fresh = jwks
      return
    }
    this.#keys = { ...this.#keys, jwks }
    this.#options.changed()
  }
}

async function* ticks(ms: number, signal: AbortSignal): AsyncGenerator<void> {
  while (!signal.aborted) {
    await setTimeout(ms, undefined, { signal, ref: false }).catch(() => undefined)
    if (!signal.aborted) yield
  }
}

/** Without what may be secret in a URL. */
function nameOf(from: NonNullable<AuthConfig['jwks']>): string {
  if ('path' in from) return from.path
  const { origin, pathname } = new URL(from.url)
  return origin + pathname
}

async function textOf(path: string): Promise<string> {
  // Not to hang on a named pipe that nobody writes to.
  await using file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK).catch(
    (error: NodeJS.ErrnoException) => {
      throw new Error(error.code === 'ENOENT' ? 'the file does not exist' : `the file cannot be read (${error.code})`)
    },
  )
  if (!(await file.stat()).isFile()) throw new Error('it is no file')
  const bytes = Buffer.concat(await file.createReadStream({ end: JWKS_BYTES, autoClose: false }).toArray())
  if (bytes.length > JWKS_BYTES) throw new Error(`it has more than ${JWKS_BYTES} bytes`)
  return bytes.toString('utf8')
}
