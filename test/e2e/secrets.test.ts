// Stored secrets in a whole Berth: servers get them, nothing else shows them, and they survive what happens to Berth.

import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { readdirSync, readFileSync, renameSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'

import { afterAll, beforeAll, expect, test } from 'vitest'

import type { Problem } from '../../src/model/problem.ts'
import { Berth, eventually, initialize } from './berth.ts'

const SERVER = {
  command: [process.execPath, join(import.meta.dirname, '..', 'fixtures', 'stdio', 'digest.ts')],
  era: 'legacy',
}
const PROGRAM = join(import.meta.dirname, '../../dist/berth.js')
const KEY = '8f'.repeat(32)

/** Every value that was ever stored. */
const values: string[] = []
let berth: Berth
/** All that any command said. */
let said = ''

beforeAll(async () => {
  berth = await Berth.make()
  const using = (name: string) => ({ ...SERVER, secrets: { TOKEN: { store: name } } })
  berth.write({ services: { keyed: using('TOKEN'), missing: using('ABSENT') } })
})

afterAll(() => berth[Symbol.asyncDispose]())

async function secret(
  input: string | Buffer,
  ...args: string[]
): Promise<{ code: number | null; out: string; err: string }> {
  const ran = await berth.cliWith(input, {}, 'secret', ...args)
  said += ran.out + ran.err
  return ran
}

function value(): string {
  const made = `hunter2-${values.length}-${'x'.repeat(20)}`
  values.push(made)
  return made
}

/** What a server of a new session has. */
async function digest(service: string): Promise<string> {
  const client = await berth.connect(berth.url((await berth.service(service)).port!), 'codex')
  const { content } = await client.callTool({ name: 'digest', arguments: {} })
  await client.close()
  return (content as { text: string }[])[0]!.text
}

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex')

/** The route may lead to the earlier life for some milliseconds. */
const gets = (service: string, expected: string) =>
  eventually(async () => expect(await digest(service)).toBe(sha256(expected)))

const problems = () => berth.api<Problem[]>('/problems')

test('one that was stored before Berth runs is what its server gets', async () => {
  expect(await secret('', 'ls')).toMatchObject({ code: 0, out: 'No secrets are stored.\n' })
  const first = value()
  expect(await secret(`${first}\n`, 'set', 'TOKEN')).toEqual({ code: 0, out: 'TOKEN is stored.\n', err: '' })
  await berth.upOrGone()
  expect(await digest('keyed')).toBe(sha256(first))
})

test('one that is not stored is a problem and 503 until it is; then the next request is served', async () => {
  const port = (await berth.service('missing')).port!
  expect(await problems()).toContainEqual(
    expect.objectContaining({
      about: 'service missing',
      message: 'The secret ABSENT, for its variable TOKEN, is not stored, so no server of it can start.',
      remedy: 'Store it: `berth secret set ABSENT`.',
    }),
  )
  const refused = await berth.post(port, initialize(), { client: 'codex' })
  expect([refused.status, refused.json.error!.message]).toEqual([
    503,
    expect.stringContaining('the secret TOKEN cannot be read: no secret ABSENT is stored'),
  ])
  const stored = value()
  const { out } = await secret(stored, 'set', 'ABSENT')
  expect(out).toBe('ABSENT is stored. missing: new servers get it; requests under way finish in those before.\n')
  await gets('missing', stored)
  await eventually(async () => expect(await problems()).toEqual([]))
})

test('a new value is what new servers get; the same one again replaces none', async () => {
  const next = value()
  const before = (await berth.until('keyed', (row) => row.slots.length === 1)).slots[0]!.pid
  expect((await secret(next, 'set', 'TOKEN', '--json')).out).toBe(
    `${JSON.stringify({ name: 'TOKEN', change: 'updated', services: ['keyed'] }, null, 2)}\n`,
  )
  await gets('keyed', next)
  const { slots } = await berth.service('keyed')
  expect(slots[0]!.pid).not.toBe(before)
  expect((await secret(next, 'set', 'TOKEN')).out).toBe('TOKEN has this value already.\n')
  expect((await secret('', 'rotate')).out).toBe('2 secrets are encrypted anew.\n')
  await gets('keyed', next)
  expect((await berth.service('keyed')).slots[0]!.pid).toBe(slots[0]!.pid)
})

test('one that is used is not removed, another is', async () => {
  expect(await secret('', 'rm', 'TOKEN')).toMatchObject({ code: 1, err: expect.stringContaining('is used by keyed') })
  await secret(value(), 'set', 'UNUSED')
  expect((await secret('', 'rm', 'UNUSED')).out).toBe('UNUSED is removed.\n')
  expect((await secret('', 'rm', 'UNUSED')).code).toBe(1)
  const listed = JSON.parse((await secret('', 'ls', '--json')).out) as object[]
  expect(listed).toEqual(
    ['ABSENT', 'TOKEN'].map((name) => ({ name, created_at: expect.any(String), updated_at: expect.any(String) })),
  )
})

test('what cannot be one is refused, and not shown', async () => {
  for (const [input, words] of [
    [Buffer.from('hunter2\xff', 'latin1'), 'not UTF-8'],
    ['hunter2'.repeat(10_000), 'more than 65536 bytes'],
  ] as const)
    expect(await secret(input, 'set', 'TOKEN')).toMatchObject({ code: 1, out: '', err: expect.stringContaining(words) })
})

test('the value is typed without an echo', async () => {
  const typed = value()
  const command = [process.execPath, PROGRAM, 'secret', 'set', 'TYPED', '--home', berth.home]
  const child = spawn('script', ['-qec', command.join(' '), '/dev/null'], { stdio: ['pipe', 'pipe', 'inherit'] })
  const exit = once(child, 'close')
  let screen = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (screen += text))
  await eventually(() => expect(screen).toContain('Value of TYPED (not shown): '))
  child.stdin.write(`${typed}x\x7f\r`)
  await eventually(() => expect(screen).toContain('TYPED is stored.'))
  child.stdin.end()
  expect((await exit)[0]).toBe(0)
  expect(screen).not.toContain('hunter2')
  berth.write({ services: { keyed: { ...SERVER, secrets: { TOKEN: { store: 'TYPED' } } } } })
  await eventually(async () => expect(await digest('keyed')).toBe(sha256(typed)))
})

test('a control plane that was killed finds what was stored meanwhile, and replaces what runs with the earlier value', async () => {
  const before = (await berth.until('keyed', (row) => row.slots.length === 1)).slots[0]!.pid
  await berth.signal('SIGKILL')
  const meanwhile = value()
  expect((await secret(meanwhile, 'set', 'TYPED')).out).toBe('TYPED is changed.\n')
  expect((await secret('', 'rotate')).out).toBe('3 secrets are encrypted anew.\n')
  await berth.upOrGone()
  await gets('keyed', meanwhile)
  expect((await berth.service('keyed')).slots[0]!.pid).not.toBe(before)
})

test('no value and no key is in the state folder, the logs, a command line, an answer of the API or the output', async () => {
  const key = readFileSync(join(berth.home, 'encryption-key'), 'utf8').trim()
  const hidden = [...values, 'hunter2', key]
  expect(values.length).toBeGreaterThan(4)
  const shown: [string, string | Buffer][] = [
    ['output', berth.output],
    ['commands', said],
    ...berth.processes().map(({ command }): [string, string] => ['process', command]),
  ]
  const files = readdirSync(berth.home, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
  for (const { parentPath, name } of files)
    if (name !== 'encryption-key') shown.push([name, readFileSync(join(parentPath, name))])
  expect(shown.map(([name]) => name)).toEqual(expect.arrayContaining(['berth.db', 'berth.log', 'keyed.log', 'process']))
  const { paths } = JSON.parse((await berth.call(berth.apiPort, '/openapi.json')).body) as {
    paths: Record<string, object>
  }
  const read = Object.entries(paths).filter(([path, methods]) => 'get' in methods && path.startsWith('/api/v1/mcp/'))
  expect(read.length).toBeGreaterThan(8)
  for (const [path] of read) {
    const own = path.slice('/api/v1/mcp'.length).replace('{name}', 'keyed')
    shown.push([own, JSON.stringify(await berth.api(own).catch((error: Error) => error.message))])
  }
  for (const [where, text] of shown)
    for (const one of hidden) expect(text.includes(one), `${one} in ${where}`).toBe(false)
  // It has said it: the adapter has put the variable's name in its place.
  expect(readFileSync(join(berth.home, 'logs', 'keyed.log'), 'utf8')).toContain('my token is $TOKEN')
  for (const name of ['encryption-key', 'admin-token'])
    expect(statSync(join(berth.home, name)).mode & 0o777, name).toBe(0o600)
  expect(statSync(berth.home).mode & 0o777).toBe(0o700)
})

test('the wrong key, a lost one and one that is none end the start with words', async () => {
  await berth.signal('SIGTERM')
  const kept = join(berth.home, 'encryption-key')
  renameSync(kept, `${kept}.aside`)
  const starts: [Record<string, string>, string][] = [
    [{}, 'None of the stored secrets'],
    [{ MCP_ENCRYPTION_KEY: KEY }, 'None of the stored secrets'],
    [{ MCP_ENCRYPTION_KEY: `${KEY}0` }, 'MCP_ENCRYPTION_KEY is no encryption key'],
  ]
  for (const [env, words] of starts) {
    const child = await berth.spawnUp(env)
    expect((await once(child, 'close'))[0]).toBe(1)
    expect(berth.output).toContain(words)
    expect(berth.output).not.toMatch(/8f8f8f|\n +at /)
  }
  expect(await secret('x', 'set', 'MORE')).toMatchObject({
    code: 1,
    err: expect.stringContaining('None of the stored'),
  })
  // Half of them can be had again with the key, all of them removed without.
  expect((await secret('', 'rm', 'ABSENT')).code).toBe(0)
  rmSync(kept, { force: true })
  renameSync(`${kept}.aside`, kept)
  expect((await berth.cliWith('', { MCP_ENCRYPTION_KEY: KEY }, 'secret', 'rotate')).out).toBe(
    '2 secrets are encrypted anew.\n',
  )
  expect(readdirSync(berth.home)).not.toContain('encryption-key')
  await berth.up({ MCP_ENCRYPTION_KEY: KEY })
  await gets('keyed', values.at(-1)!)
  // Nothing that Berth has started knows the key.
  const [control] = berth.processes().filter(({ command }) => command.includes('berth.js'))
  for (const { pid, command } of berth.processes())
    if (pid !== control!.pid) expect(readFileSync(`/proc/${pid}/environ`).includes(KEY), command).toBe(false)
})

test('a folder that cannot be made is told', async () => {
  const ran = spawn(process.execPath, [PROGRAM, 'secret', 'set', 'A', '--home', '/sys/none/h'])
  ran.stdin.end('x')
  let err = ''
  ran.stderr.setEncoding('utf8').on('data', (text: string) => (err += text))
  expect((await once(ran, 'close'))[0]).toBe(1)
  expect(err).toMatch(/^The state folder \/sys\/none\/h cannot be made \(E[A-Z]+\)\.\n$/)
})
