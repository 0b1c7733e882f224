// Secrets from their sources, and errors that name the secret and never hold a value.

import { execFileSync } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import type { SecretSource } from '../../src/model/service.ts'
import { readSecrets } from '../../src/slots/secrets.ts'

const VALUE = 'hunter2-is-the-value'

let folder: string

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'bse-'))
})

afterAll(() => rmSync(folder, { recursive: true }))

function file(name: string, content: string | Buffer): SecretSource {
  const path = join(folder, name)
  writeFileSync(path, content)
  return { from: 'file', path }
}

/** A program of Node.js without a shell between. */
function program(script: string, ...args: string[]): SecretSource {
  return { from: 'exec', command: [process.execPath, '-e', script, ...args] }
}

/** What Berth keeps itself; its words are the error's. */
function stored(name: string): string {
  if (name === 'TOKEN') return VALUE
  throw new Error(`no secret ${name} is stored`)
}

function read(source: SecretSource, env: NodeJS.ProcessEnv = {}): Promise<string> {
  return readSecrets({ API_KEY: source }, folder, env, stored).then((values) => values['API_KEY']!)
}

async function failure(source: SecretSource, env: NodeJS.ProcessEnv = {}): Promise<Error> {
  const error = await read(source, env).then(
    (value) => expect.fail(`it was read: ${value}`),
    (reason: unknown) => reason as Error,
  )
  expect(error.message).toMatch(/^the secret API_KEY cannot be read: /)
  const { cause, stack } = error
  expect(`${error.message} ${stack} ${JSON.stringify(cause)}`).not.toContain('hunter2')
  return error
}

describe('a value', () => {
  test('is that of a variable, empty ones and line ends included', async () => {
    expect(await read({ from: 'env', name: 'KEY' }, { KEY: 'a\n' })).toBe('a\n')
    expect(await read({ from: 'env', name: 'KEY' }, { KEY: '' })).toBe('')
  })

  test.for([
    ['value', 'value'],
    ['value\n', 'value'],
    ['value\r\n', 'value'],
    ['value\n\n', 'value\n'],
    [' two words ', ' two words '],
    ['schlüssel\n', 'schlüssel'],
    ['', ''],
  ])('of a file with %j is %j', async ([content, value]) => {
    expect(await read(file('value', content!))).toBe(value)
  })

  test('is what a program prints, run in the folder of the configuration with the environment it was given', async () => {
    expect(await read(program('console.log(process.cwd(), process.env.FROM)'), { FROM: 'here' })).toBe(`${folder} here`)
    mkdirSync(join(folder, 'bin'))
    writeFileSync(join(folder, 'bin', 'get'), '#!/bin/sh\necho "$@"\n')
    chmodSync(join(folder, 'bin', 'get'), 0o700)
    expect(await read({ from: 'exec', command: ['./bin/get', 'a b', '$HOME'] })).toBe('a b $HOME')
  })

  test('that Berth keeps is that of its name', async () => {
    expect(await read({ from: 'store', name: 'TOKEN', revision: 'r' })).toBe(VALUE)
    expect((await failure({ from: 'store', name: 'OTHER' })).message).toContain('no secret OTHER is stored')
  })

  test("of a program is not made with the key of Berth's own secrets in reach", async () => {
    const script = 'console.log(`${process.env.FROM} ${process.env.MCP_ENCRYPTION_KEY}`)'
    expect(await read(program(script), { FROM: 'here', MCP_ENCRYPTION_KEY: 'k' })).toBe('here undefined')
  })

  test('may be as long as 64 KiB', async () => {
    const most = 'x'.repeat(65_536)
    expect(await read(file('long', most))).toBe(most)
    await failure(file('longer', `${most}x`))
  })

  test('of a pipe is not waited for', async () => {
    const path = join(folder, 'pipe')
    execFileSync('mkfifo', [path])
    const error = await failure({ from: 'file', path })
    expect(error.message).toContain(`${path} is a pipe`)
  })

  test('each stands under its name', async () => {
    const secrets = { A: { from: 'env', name: 'ONE' }, B: file('b', 'two') } as const
    expect(await readSecrets(secrets, folder, { ONE: 'one' }, stored)).toEqual({ A: 'one', B: 'two' })
    expect(await readSecrets({}, folder, {}, stored)).toEqual({})
  })
})

describe('an error', () => {
  test('names a variable that is not set', async () => {
    const { message } = await failure({ from: 'env', name: 'KEY' }, { OTHER: VALUE })
    expect(message).toContain('the environment variable KEY is not set')
  })

  test('names a file that is missing, a folder, or without an end', async () => {
    const missing = join(folder, 'missing')
    expect((await failure({ from: 'file', path: missing })).message).toContain(`ENOENT`)
    expect((await failure({ from: 'file', path: missing })).message).toContain(missing)
    expect((await failure({ from: 'file', path: folder })).message).toContain('EISDIR')
    expect((await failure({ from: 'file', path: '/dev/zero' })).message).toContain('more than 65536 bytes')
  })

  test('does not hold a value that no environment can hold', async () => {
    expect((await failure(file('binary', `${VALUE}\0`))).message).toContain('it holds a zero byte')
    expect((await failure(program(`process.stdout.write('${VALUE}\\0')`))).message).toContain('it holds a zero byte')
  })

  test('does not hold what a program printed before it failed', async () => {
    const script = "console.log('hunter2'); console.error('hunter2'); process.exitCode = 3"
    const { message } = await failure(program(script, VALUE))
    expect(message).toContain(`the program ${process.execPath} failed (3)`)
  })

  test('does not hold the output of a program that prints too much', async () => {
    const { message } = await failure(program("process.stdout.write('hunter2'.repeat(20_000))"))
    expect(message).toMatch(/failed \(ERR_CHILD_PROCESS_STDIO_MAXBUFFER\)$/)
  })

  test('tells a program that is not there from one that may not be run and from one that was killed', async () => {
    const missing: SecretSource = { from: 'exec', command: ['./no-such-program', VALUE] }
    expect((await failure(missing)).message).toContain('the program ./no-such-program was not found')
    const plain = file('plain', VALUE) as { path: string }
    expect((await failure({ from: 'exec', command: [plain.path] })).message).toMatch(/failed \(EACCES\)$/)
    expect((await failure(program("process.kill(process.pid, 'SIGTERM')"))).message).toMatch(/failed \(SIGTERM\)$/)
  })

  test('ends the wait for a program that does not end and will not be asked to', async () => {
    const { message } = await failure(program("process.on('SIGTERM', () => {}); setInterval(() => {}, 1000)"))
    expect(message).toMatch(/failed \(timed out\)$/)
  })
})
