// The commands that read the control API: ls, status, problems, envoy dump.

import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import type { ApiServer } from '../../src/api/server.ts'
import type { View } from '../../src/api/view.ts'
import { berth, controlApi, service } from './berth.ts'

let cwd: string
let home: string
let server: ApiServer | undefined

beforeEach(async () => {
  cwd = await mkdtemp(join(tmpdir(), 'brd-'))
  home = join(cwd, '.berth')
})
afterEach(async () => {
  await server?.close()
  server = undefined
  await rm(cwd, { recursive: true, force: true })
})

async function running(view: Partial<View> = {}): Promise<void> {
  server = await controlApi(home, view)
}

const run = (...argv: string[]) => berth(argv, { cwd })

describe('berth ls', () => {
  const services = [
    service({
      name: 'files',
      why: 'streams, sessions',
      slots: [{ client: 'codex', state: 'up', sessions: 2, processes: 2, pid: 7 }],
    }),
    service({ name: 'm', port: null, url: null, gateway_url: null, state: 'no-port', health: 'unknown' }),
    service({ name: 'quiet', state: 'asleep', health: 'unknown', why: 'unused for 10 min' }),
    service({ name: 'broken', state: 'failed', health: 'unhealthy', reason: 'It ended with code 1.' }),
  ]

  test('aligns columns and says why what does not run does not', async () => {
    await running({ services: () => services })
    const { code, out } = await run('ls')
    expect(code).toBe(0)
    expect(out).toMatchInlineSnapshot(`
      "NAME    STATE                       HEALTH     ISOLATION  RUNTIME  SESSIONS  URL
      files   up (streams, sessions)      healthy    session    process  2         http://127.0.0.1:11100/mcp
      m       no-port                     unknown    session    process  0         -
      quiet   asleep (unused for 10 min)  unknown    session    process  0         http://127.0.0.1:11100/mcp
      broken  failed                      unhealthy  session    process  0         http://127.0.0.1:11100/mcp

      broken: It ended with code 1.
      "
    `)
  })

  test('--json is the list of the API', async () => {
    await running({ services: () => services })
    expect(JSON.parse((await run('ls', '--json')).out)).toEqual(services)
  })

  test('without services says how to add one', async () => {
    await running()
    expect((await run('ls')).out).toMatch(/^No services yet\. Add one below services in berth\.yaml/)
    expect((await run('ls', '--json')).out).toBe('[]\n')
  })
})

describe('berth status', () => {
  test('in words', async () => {
    await running()
    expect((await run('status')).out).toBe(
      `Berth 1.2.3: ready, pid ${process.pid}, up 3 h 20 min\n` +
        'Envoy 1.40.0: running, pid 11, 1 restart\n' +
        'Metrics: http://127.0.0.1:19090/metrics\n' +
        '2 services (0 up, 0 asleep), 1 problem (berth problems shows what to do)\n',
    )
  })

  test.each([
    [0, '0 s'],
    [59, '59 s'],
    [60, '1 min'],
    [61, '1 min 1 s'],
    [3600, '1 h'],
    [90_061, '1 d 1 h'],
  ])('%i seconds are %s', async (uptime_s, words) => {
    const envoy = { pid: null, version: '1.40.0', state: 'down', restarts: 0 }
    const xds = { sent: 0, removed: 0, acknowledged: 0, refused: 0 }
    const counts = { services: 0, releases: 0, problems: 0 }
    const status = { pid: 1, uptime_s, version: '1', ready: false, envoy, xds, metrics: null, ...counts }
    await running({ status: () => status })
    const lines = `Berth 1: not ready yet, pid 1, up ${words}\nEnvoy 1.40.0: down, 0 restarts\n0 services, 0 problems\n`
    expect((await run('status')).out).toBe(lines)
    expect(JSON.parse((await run('status', '--json')).out)).toEqual(status)
  })
})

describe('berth problems', () => {
  const problem = { about: 'service x', where: 'berth.yaml:3', message: 'It is wrong.', remedy: 'Mend it.' }

  test('each with what to do', async () => {
    await running({ problems: () => [problem, problem] })
    const one = 'berth.yaml:3: service x\n  It is wrong.\n  Mend it.\n'
    expect(await run('problems')).toEqual({ code: 0, out: `${one}\n${one}`, err: '' })
    expect(JSON.parse((await run('problems', '--json')).out)).toEqual([problem, problem])
  })

  test('none', async () => {
    await running()
    expect((await run('problems')).out).toBe('No problems.\n')
  })
})

describe('berth envoy dump', () => {
  const snapshot = { 'type.googleapis.com/T': { a: { name: 'a' } } }

  test('is the snapshot of the control plane', async () => {
    await running({ snapshot: () => snapshot })
    expect(JSON.parse((await run('envoy', 'dump')).out)).toEqual(snapshot)
  })

  test("--live is Envoy's own, through its admin socket", async () => {
    const asked: string[] = []
    const admin = createServer((request, response) => {
      asked.push(`${request.method} ${request.url}`)
      response.end('{"configs":[]}')
    })
    await running()
    await new Promise<void>((resolve) => admin.listen(join(home, 'admin.sock'), resolve))
    try {
      expect(JSON.parse((await run('envoy', 'dump', '--live')).out)).toEqual({ configs: [] })
      expect(asked).toEqual(['GET /config_dump?include_eds'])
    } finally {
      admin.close()
    }
    const gone = await run('envoy', 'dump', '--live')
    expect(gone).toMatchObject({ code: 1, err: expect.stringMatching(/^Envoy does not answer on .*admin\.sock/) })
  })

  test('knows nothing else', async () => {
    expect(await run('envoy', 'dmp')).toMatchObject({
      code: 2,
      err: 'berth envoy has dump, patches, bootstrap and restart, not dmp.\n',
    })
  })
})

describe('without a control plane', () => {
  const notRunning = () => ({
    code: 1,
    out: '',
    err:
      `Berth is not running with the state folder ${home}.\n` +
      'Start it with berth up. If it runs elsewhere, name its state folder with --home or BERTH_HOME.\n',
  })

  test.each([['ls'], ['status'], ['problems'], ['envoy', 'dump'], ['call', 'files']])(
    'berth %s %s',
    async (...argv) => {
      expect(await run(...argv, '--json')).toEqual(notRunning())
    },
  )

  test('the address that a killed one left behind is not taken for one', async () => {
    await running()
    await server!.close()
    server = undefined
    // No process has it: Linux gives ids up to 4 Mi.
    await writeFile(join(home, 'api.json'), JSON.stringify({ url: 'http://127.0.0.1:9', pid: 2 ** 30, admin: '/x' }))
    expect(await run('ls')).toEqual(notRunning())
  })

  test('one that lives and does not answer is said to', async () => {
    await running()
    await server!.close()
    server = undefined
    expect(await run('ls')).toMatchObject({ code: 1, err: expect.stringMatching(/^Berth runs \(pid \d+\), but/) })
  })

  test('a token that is not its own, and a file that it did not write, are said', async () => {
    await running()
    await writeFile(join(home, 'admin-token'), `${'x'.repeat(43)}\n`)
    expect(await run('ls')).toMatchObject({ code: 1, err: expect.stringContaining('does not take the token') })
    await writeFile(join(home, 'api.json'), '{}')
    expect(await run('ls')).toMatchObject({ code: 1, err: expect.stringContaining('is not what Berth wrote') })
  })

  test('a state folder that is a file is no control plane either', async () => {
    await mkdir(cwd, { recursive: true })
    await writeFile(home, '')
    expect(await run('ls')).toMatchObject({ code: 1 })
  })
})
