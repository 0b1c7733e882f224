// The commands for services one by one: restart, release, logs; and for Envoy: restart.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { appendFile, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import type { ReleaseRow, Releasing } from '../../src/api/release.ts'
import type { ApiServer } from '../../src/api/server.ts'
import { OperatorError } from '../../src/model/operator-error.ts'
import { berth, controlApi, service } from './berth.ts'

let cwd: string
let api: ApiServer | undefined

beforeEach(async () => {
  cwd = await mkdtemp(join(tmpdir(), 'bop-'))
})
afterEach(async () => {
  await api?.close()
  api = undefined
  await rm(cwd, { recursive: true, force: true })
})

const run = (...argv: string[]) => berth(argv, { cwd })

describe('berth restart', () => {
  const counts: Record<string, number> = { two: 2, one: 1, none: 0 }

  beforeEach(async () => {
    const services = () => Object.keys(counts).map((name) => service({ name }))
    api = await controlApi(join(cwd, '.berth'), { services }, undefined, { restart: (name) => counts[name]! })
  })

  test('says what starts anew', async () => {
    expect(await run('restart', 'two')).toEqual({
      code: 0,
      out: 'two: 2 slots start anew with the next request.\n',
      err: '',
    })
    expect((await run('restart', 'one')).out).toBe('one: one slot starts anew with the next request.\n')
    expect((await run('restart', 'none')).out).toBe('none does not run: there is nothing to restart.\n')
    expect(JSON.parse((await run('restart', 'two', '--json')).out)).toEqual({ restarted: 2 })
  })

  test('an unknown service: the nearest is named; none: wrong usage', async () => {
    const { code, err } = await run('restart', 'tow')
    expect([code, err]).toEqual([1, expect.stringContaining('Did you mean two?')])
    expect((await run('restart')).code).toBe(2)
  })
})

describe('berth envoy restart', () => {
  const restarted = { pid: 12, version: '1.40.0', hot: true, stream_seconds: 600 }
  const asked: boolean[] = []

  beforeEach(async () => {
    asked.length = 0
    api = await controlApi(join(cwd, '.berth'), {}, undefined, {
      restartEnvoy: async (cut) => {
        asked.push(cut)
        return cut ? { ...restarted, hot: false, stream_seconds: 0 } : restarted
      },
    })
  })

  test('says what became of open streams', async () => {
    expect(await run('envoy', 'restart')).toEqual({
      code: 0,
      out: 'Envoy 1.40.0 serves now (pid 12); streams that were open stay with the one before, for 10 min at most.\n',
      err: '',
    })
    expect((await run('envoy', 'restart', '--cut')).out).toBe(
      'Envoy 1.40.0 serves now (pid 12); the streams that were open are cut.\n',
    )
    expect(JSON.parse((await run('envoy', 'restart', '--json')).out)).toEqual(restarted)
    expect(asked).toEqual([false, true, false])
  })

  test('that is not possible: why, and exit code 1', async () => {
    await api!.close()
    const restartEnvoy = () => Promise.reject(new OperatorError('Envoy is being replaced already.'))
    api = await controlApi(join(cwd, '.berth'), {}, undefined, { restartEnvoy })
    expect(await run('envoy', 'restart')).toEqual({ code: 1, out: '', err: 'Envoy is being replaced already.\n' })
  })
})

describe('berth release', () => {
  const side = {
    version: null,
    runs: 'mcp/files:1',
    up: 1,
    sessions: 2,
    requests: 40,
    errors: 0,
    error_rate: 0,
  } as const
  const canary = { error_rate: 0.1, weight: 25, clients: ['codex'], split: ['anonymous'] }
  const row: ReleaseRow = {
    service: 'files',
    state: 'canary',
    rollback: { error_rate: 0.05, requests: 20 },
    versions: [
      { role: 'stable', ...side },
      { ...side, role: 'canary', version: '1a2b3c4d', runs: 'mcp/files:2', requests: 10, errors: 1, ...canary },
    ],
  }
  const asked: string[] = []

  beforeEach(async () => {
    const decide: Releasing['decide'] = async (name, action) => {
      asked.push(`${action} ${name}`)
      return action === 'promote' ? { ...row, state: 'promoted' } : { refused: 'It is rolled back already.' }
    }
    const services = () => [service({ name: 'files' })]
    api = await controlApi(join(cwd, '.berth'), { services }, undefined, {}, {}, { show: () => row, decide })
  })

  test('shows both versions', async () => {
    expect((await run('release', 'files')).out).toBe(
      [
        'files: a canary runs. It is rolled back when more than 5 % of 20 requests or more fail.',
        '',
        'VERSION  NAME      PART      SLOTS  SESSIONS  REQUESTS  ERRORS    RUNS',
        'stable   -         the rest  1      2         40        0 (0 %)   mcp/files:1',
        'canary   1a2b3c4d  25 %      1      2         10        1 (10 %)  mcp/files:2',
        '',
        'canary: codex.',
        'Divided by the weight: what anonymous begins.',
        '',
      ].join('\n'),
    )
    expect(JSON.parse((await run('release', 'files', 'status', '--json')).out)).toEqual(row)
  })

  test('decides, and tells a refusal', async () => {
    expect((await run('release', 'files', 'promote')).out).toContain('files: the canary was promoted.')
    expect(await run('release', 'files', 'rollback')).toMatchObject({ code: 1, err: 'It is rolled back already.\n' })
    expect(asked).toEqual(['promote files', 'rollback files'])
    expect((await run('release', 'files', 'destroy')).code).toBe(2)
    expect((await run('release', 'nobody', 'promote')).code).toBe(1)
  })
})

describe('berth logs', () => {
  const file = () => join(cwd, '.berth', 'logs', 'files.log')

  beforeEach(async () => {
    await mkdir(join(cwd, '.berth', 'logs'), { recursive: true })
    await writeFile(file(), 'one\ntwo\nred \u001b[31m\n')
  })

  test('shows the end, while Berth is down, too', async () => {
    expect(await run('logs', 'files')).toEqual({ code: 0, out: 'one\ntwo\nred \u001b[31m\n', err: '' })
    expect((await run('logs', 'files', '-n', '2')).out).toBe('two\nred \u001b[31m\n')
    expect((await run('logs', 'files', '-n', '0')).out).toBe('')
    expect(JSON.parse((await run('logs', 'files', '--lines', '2', '--json')).out)).toEqual({
      lines: ['two', 'red \u001b[31m'],
    })
  })

  test("a server's text does not steer the terminal", async () => {
    expect((await berth(['logs', 'files', '-n', '1'], { cwd, terminal: true })).out).toBe('red [31m\n')
  })

  test('no such log: the nearest is named', async () => {
    const { code, err } = await run('logs', 'fles')
    expect([code, err]).toEqual([1, expect.stringMatching(/Did you mean files\?.* There are: files\./)])
    await rm(join(cwd, '.berth'), { recursive: true })
    expect(await run('logs', 'files')).toMatchObject({ code: 1, err: expect.stringContaining('There are: none.') })
  })

  test.each([
    ['../files', []],
    ['files', ['-n', 'many']],
    ['files', ['-n', '100001']],
    ['files', ['-f', '--json']],
  ])('%s %j is wrong usage', async (name, more) => {
    expect(await run('logs', name, ...more)).toMatchObject({ code: 2, out: '' })
  })

  test('-f goes on with what is appended, until Ctrl-C', async () => {
    const cli = join(import.meta.dirname, '..', '..', 'src', 'cli.ts')
    const child = spawn(process.execPath, [cli, 'logs', 'files', '-f', '-n', '1'], { cwd, stdio: 'pipe' })
    child.stdout.setEncoding('utf8')
    const exit = once(child, 'exit')
    try {
      expect(await once(child.stdout, 'data')).toEqual(['red \u001b[31m\n'])
      const more = once(child.stdout, 'data')
      await appendFile(file(), 'three\n')
      expect(await more).toEqual(['three\n'])
    } finally {
      child.kill('SIGINT')
    }
    expect(await exit).toEqual([0, null])
  })
})
