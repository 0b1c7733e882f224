// Authentication in a running control plane: which keys and revocations Envoy is told of, and the desk where tokens are
// made (contract, "Who the client is").

import type { TokenDesk } from './api/tokens.ts'
import { KeyRing } from './auth/key-ring.ts'
import { Tokens } from './auth/tokens.ts'
import { equal } from './compile/memory.ts'
import type { Config } from './config/load.ts'
import type { World } from './compile/compile.ts'
import type { AuthConfig, Revoked } from './model/auth.ts'
import { OperatorError } from './model/operator-error.ts'
import { problemLine, type Problem } from './model/problem.ts'
import type { Reconciler } from './reconcile.ts'
import { readSecrets } from './slots/secrets.ts'
import type { Store } from './store/store.ts'
import { untilSynced } from './synced.ts'
import { createDesk } from './token-desk.ts'

export interface AuthenticatingOptions {
  readonly store: Pick<Store, 'tokens'>
  readonly home: string
  readonly env: NodeJS.ProcessEnv
  /** The value of a secret that Berth keeps itself; throws with why there is none. */
  readonly storedSecret: (name: string) => string
  readonly config: () => Pick<Config, 'clients' | 'auth'>
  readonly reconciler: () => Pick<Reconciler, 'placed' | 'gateway' | 'changed' | 'settled'>
  /** Whether Envoy has all filters' configurations as they are, and has refused none. */
  readonly synced: () => boolean
  readonly log: (message: string, fields?: object) => void
}

export interface Authenticating {
  /** As the compiler takes it. */
  readonly auth: () => World['auth']
  /** Before anything is served. @throws {OperatorError} when the configuration cannot be in force */
  start(config: AuthConfig | undefined): Promise<void>
  readonly configure: (config: AuthConfig | undefined) => void
  readonly problems: () => Problem[]
  readonly desk: TokenDesk
  close(): void
}

/** How long an Envoy that does not answer is waited for; whoever asks waits longer (commands/token.ts). */
const SYNC_MS = 10_000
/** What is over is forgotten once an hour, so that it leaves Envoy's configuration, too. */
const PRUNE_MS = 60 * 60_000

export function createAuthenticating(options: AuthenticatingOptions, syncMs = SYNC_MS): Authenticating {
  const { store, home, env, storedSecret, reconciler, synced, log } = options
  const tokens = new Tokens(store.tokens, Date.now)
  let revoked: Revoked = tokens.revoked()
  // Also of an earlier control plane, whose listeners may drain.
  let nonce = store.tokens.hasNonce() ? store.tokens.nonce() : undefined
  const ring = new KeyRing({
    home,
    env,
    readSecret: async (source, cwd) =>
      (await readSecrets({ 'of tokens': source }, cwd, env, storedSecret))['of tokens']!,
    fetched: { get: (url) => store.tokens.keys(url), set: (url, jwks) => store.tokens.setKeys(url, jwks) },
    changed: () => reconciler().changed(),
    log,
  })
  const lookAgain = (): void => {
    const next = tokens.revoked()
    // The same object for the same tokens, so that nobody compiles anything for them.
    if (equal(next, revoked)) return
    revoked = next
    reconciler().changed()
  }
  const timer = setInterval(() => {
    tokens.list()
    lookAgain()
  }, PRUNE_MS).unref()
  return {
    auth() {
      const { auth } = ring
      if (auth) return { ...auth, revoked, nonce: (nonce ??= store.tokens.nonce()) }
      return nonce === undefined ? undefined : 'off'
    },
    async start(config) {
      await ring.configure(config)
      const [problem] = ring.problems()
      if (config && !ring.keys) throw new OperatorError(problem ? problemLine(problem) : 'Nobody can be authenticated.')
    },
    configure: (config) => void ring.configure(config),
    problems: () => ring.problems(),
    desk: createDesk({
      tokens,
      keys: () => ring.keys,
      world: () => ({
        gatewayPort: reconciler().gateway,
        services: reconciler().placed.map(({ service }) => service.name),
        clients: options.config().clients.map(({ name }) => name),
      }),
      async revoked() {
        lookAgain()
        // Nobody checks tokens, and whoever will has the list from the beginning.
        if (!ring.keys && !options.config().auth) return
        await reconciler().settled()
        if (!(await untilSynced(synced, syncMs)))
          throw new OperatorError(
            'It is revoked, but Envoy has not taken that up, and may let requests in until it does. `berth problems` and `berth status` show why.',
          )
      },
    }),
    close() {
      clearInterval(timer)
      ring.close()
    },
  }
}
