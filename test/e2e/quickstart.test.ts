// `berth up` in an empty folder: the quickstart's three servers, on the ports that the contract names.

import { expect, test } from 'vitest'

import { Berth } from './berth.ts'

test('three services on 11100 to 11102 and through 10005, said in one line, and nothing left afterwards', async () => {
  await using berth = await Berth.quickstart()
  await berth.up()
  expect(berth.output).toMatch(/quickstart/)
  expect(berth.output.match(/^ready: .*$/gm)).toEqual([
    'ready: everything http://127.0.0.1:11100/mcp, files http://127.0.0.1:11101/mcp, memory http://127.0.0.1:11102/mcp; ' +
      'all through one port: http://127.0.0.1:10005/<service>/mcp',
  ])
  for (const [index, name] of ['everything', 'files', 'memory'].entries())
    for (const url of [`http://127.0.0.1:${11_100 + index}/mcp`, `http://127.0.0.1:10005/${name}/mcp`]) {
      const clients = await Promise.all(['claude-code', 'codex'].map((client) => berth.connect(url, client)))
      for (const client of clients) expect((await client.listTools()).tools.length).toBeGreaterThan(3)
    }
  const ls = await berth.cli('ls', '--json')
  expect(JSON.parse(ls.out)).toMatchObject([
    { name: 'everything', port: 11_100, state: 'up' },
    { name: 'files', port: 11_101, state: 'up' },
    { name: 'memory', port: 11_102, state: 'up' },
  ])
  expect((await berth.cli('doctor')).code).toBe(0)
  expect(await berth.signal('SIGINT')).toBe(0)
  expect(berth.processes()).toEqual([])
})
