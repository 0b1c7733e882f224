// `berth secret`: secrets that Berth keeps itself, encrypted, for `secrets: {KEY: {store: NAME}}`. Through the running
// control plane, or in the state folder where none runs. A value comes from standard input or is typed, never an argument:
// those are in the list of processes and in the shell's history.

import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { Writable } from 'node:stream'
import { isUtf8 } from 'node:buffer'

import { listedSecret, type ListedSecret, type Rotated, type SecretRemoved, type SecretSet } from '../api/secrets.ts'
import { OperatorError } from '../model/operator-error.ts'
import { SECRET_BYTES, SECRET_NAME, SECRET_NAME_WORDS, valueMistake } from '../model/secret.ts'
import { birthOf, runs } from '../slots/process.ts'
import { KeyFile, keysOf } from '../store/encryption-keys.ts'
import { openOwnStore } from '../store/ownership.ts'
import { SecretStore } from '../store/secret-store.ts'
import { openStore, type Store } from '../store/store.ts'
import { type CommandContext, UsageError } from './command.ts'
import { NotRunning, running, type Running } from './running.ts'
import { table } from './table.ts'

export const name = 'secret'
export const summary =
  'Keep secrets for servers, encrypted (set: the value comes from standard input); list or remove them, or change their key (rotate).'
export const usage = '<set|ls|rm|rotate> [name]'
export const options = {}

/** What the actions do, whoever carries them out. */
interface Keeper {
  list(): Promise<readonly ListedSecret[]>
  set(name: string, value: string): Promise<SecretSet>
  remove(name: string): Promise<SecretRemoved>
  rotate(): Promise<Rotated>
}

export async function run(context: CommandContext): Promise<number> {
  const [action, secret] = context.args
  const { json, print } = context
  const named = action === 'set' || action === 'rm'
  if (!named && action !== 'ls' && action !== 'rotate')
    throw new UsageError(`secret takes set, ls, rm or rotate, not ${action}.`)
  if (named && secret === undefined) throw new UsageError(`[name] is missing: berth secret ${action} NAME`)
  if (!named && secret !== undefined) throw new UsageError(`berth secret ${action} takes no name.`)
  if (secret !== undefined && !SECRET_NAME.test(secret))
    throw new UsageError(`The name is none for a secret. Use ${SECRET_NAME_WORDS}.`)
  const say = (answer: object, words: string): number => {
    print(json ? JSON.stringify(answer, null, 2) : words)
    return 0
  }
  // Before anything is locked: a person may take their time.
  const value = action === 'set' ? await readValue(secret!, context) : ''
  const keeper = await keeperOf(context)
  if (action === 'ls') {
    const secrets = await keeper.list()
    return say(secrets, secrets.length === 0 ? 'No secrets are stored.' : list(secrets))
  }
  if (action === 'rotate') {
    const answer = await keeper.rotate()
    return say(answer, `${answer.rotated === 1 ? 'One secret is' : `${answer.rotated} secrets are`} encrypted anew.`)
  }
  if (action === 'rm') return say(await keeper.remove(secret!), `${secret} is removed.`)
  const answer = await keeper.set(secret!, value)
  return say(answer, words(answer))
}

function list(secrets: readonly ListedSecret[]): string {
  const at = (time: string): string => `${time.slice(0, 19).replace('T', ' ')} UTC`
  return table([
    ['NAME', 'CREATED', 'CHANGED'],
    ...secrets.map(({ name, created_at: created, updated_at: updated }) => [name, at(created), at(updated)]),
  ])
}

function words({ name, change, services }: SecretSet): string {
  if (change === 'unchanged') return `${name} has this value already.`
  const done = `${name} is ${change === 'created' ? 'stored' : 'changed'}.`
  if (services.length === 0) return done
  return `${done} ${services.join(', ')}: new servers get it; requests under way finish in those before.`
}

async function keeperOf(context: CommandContext): Promise<Keeper> {
  try {
    const found = await running(context)
    // Only an answer shows whether it still runs, and what comes next is not to be tried twice.
    const secrets = await found.get<readonly ListedSecret[]>('secrets')
    return overApi(found, secrets)
  } catch (error) {
    if (error instanceof NotRunning) return inFolder(context)
    throw error
  }
}

function overApi({ put, post, remove }: Running, secrets: readonly ListedSecret[]): Keeper {
  return {
    list: () => Promise.resolve(secrets),
    set: (name, value) => put(`secrets/${name}`, { value }),
    remove: (name) => remove(`secrets/${name}`),
    rotate: () => post('secrets', { action: 'rotate' }, ROTATE_MS),
  }
}

/** A thousand large ones, on a slow disk. */
const ROTATE_MS = 60_000

/** Directly, where nobody runs: what is there is owned meanwhile, so that no control plane starts in the middle. */
function inFolder({ home, env }: CommandContext): Keeper {
  const file = join(home, 'berth.db')
  const open = (store: Store): SecretStore => new SecretStore(store.secrets, new KeyFile(home), keysOf(env))
  return {
    async list() {
      if (!existsSync(file)) return []
      const store = openStore(file)
      try {
        return store.secrets.list().map(listedSecret)
      } finally {
        store.close()
      }
    },
    set: async (name, value) => owned(home, (store) => ({ name, change: open(store).set(name, value), services: [] })),
    async remove(name) {
      // What nobody can decrypt any more can be removed, too.
      if (existsSync(file) && owned(home, (store) => store.secrets.remove(name))) return { removed: name }
      throw new OperatorError(`There is no secret ${name}. berth secret ls lists them.`)
    },
    rotate: async () =>
      existsSync(file) ? owned(home, (store) => ({ rotated: open(store).rotate() })) : { rotated: 0 },
  }
}

/** Work in the state folder that no control plane has. */
export function owned<T>(home: string, work: (store: Store) => T): T {
  try {
    mkdirSync(home, { recursive: true, mode: 0o700 })
  } catch (error) {
    throw new OperatorError(`The state folder ${home} cannot be made (${(error as NodeJS.ErrnoException).code}).`, {
      cause: error,
    })
  }
  const store = openOwnStore(home, { pid: process.pid, birth: birthOf(process.pid)! }, runs)
  try {
    return work(store)
  } finally {
    store.dropOwnership(process.pid)
    store.close()
  }
}

async function readValue(name: string, { note }: CommandContext): Promise<string> {
  const value = process.stdin.isTTY ? await typed(name) : await piped()
  const wrong = valueMistake(value)
  if (wrong !== undefined) throw new OperatorError(`${wrong} Nothing is stored.`)
  if (/[\r\n]/.test(value)) note('The value has several lines.')
  return value
}

/** One line end at the end belongs to the text, not to the secret: as with files. */
async function piped(): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of process.stdin as AsyncIterable<Buffer>) {
    chunks.push(chunk)
    size += chunk.length
    if (size > SECRET_BYTES + 2)
      throw new OperatorError(`The value has more than ${SECRET_BYTES} bytes. Nothing is stored.`)
  }
  const bytes = Buffer.concat(chunks)
  if (!isUtf8(bytes)) throw new OperatorError('The value is not UTF-8 text. Nothing is stored.')
  return bytes.toString('utf8').replace(/\r?\n$/, '')
}

/** Without an echo: the terminal's own is off while readline edits, and what readline would show goes nowhere. */
async function typed(name: string): Promise<string> {
  process.stderr.write(`Value of ${name} (not shown): `)
  const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() })
  const lines = createInterface({ input: process.stdin, output: nowhere, terminal: true, historySize: 0 })
  try {
    return await new Promise((resolve, reject) => {
      lines.once('line', resolve)
      // Ctrl-C, or Ctrl-D on an empty line.
      lines.once('close', () => reject(new OperatorError('Nothing is stored.')))
    })
  } finally {
    lines.close()
    process.stderr.write('\n')
  }
}
