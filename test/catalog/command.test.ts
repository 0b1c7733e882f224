import { tmpdir } from 'node:os'

import { describe, expect, test } from 'vitest'

import { CATALOG } from '../../src/catalog/entries.ts'
import { berth, type Ran } from '../commands/berth.ts'

const catalog = (...argv: readonly string[]): Promise<Ran> => berth(['catalog', ...argv], { cwd: tmpdir() })

describe('berth catalog', () => {
  test('lists every service on one line that fits a terminal', async () => {
    const { code, out } = await catalog()
    expect(code).toBe(0)
    const lines = out.split('\n')
    for (const { name } of CATALOG) expect(lines.filter((line) => line.startsWith(`${name} `))).toHaveLength(1)
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(120)
    expect(lines.find((line) => line.startsWith('brave-search '))).toContain('BRAVE_API_KEY')
  })

  test('shows one of them, and what to write', async () => {
    const { code, out } = await catalog('memory')
    expect(code).toBe(0)
    expect(out).toMatchInlineSnapshot(`
      "memory: A graph of what was learned, kept in a file

      Stores entities, their relations and observations about them, finds them again, and keeps all of it in one file across sessions.

        package    @modelcontextprotocol/server-memory 2026.8.31 (npm)
        image      berth/memory:2026.8.31
        program    mcp-server-memory
        setting    MEMORY_FILE_PATH=/data/memory.jsonl: Where the graph is kept. Its own default is a file beside the program, which cannot be written.
        network    none: It works on one local file.
        folder     /data (rw): The graph; it must be writable for user 1001.
        isolation  shared: The whole graph is in one file that two processes would overwrite for each other.
        memory     58 MB after it has listed its tools

      Make the image with berth image build memory, then write in berth.yaml:

        services:
          memory:
            image: berth/memory:2026.8.31
            isolation: shared
            volumes: ["memory:/data"]
      "
    `)
  })

  test('gives a program all there is to know', async () => {
    const all = JSON.parse((await catalog('--json')).out) as readonly { name: string }[]
    expect(all.map(({ name }) => name)).toEqual(CATALOG.map(({ name }) => name))
    const one = JSON.parse((await catalog('postgres', '--json')).out) as object
    expect(one).toEqual(all.find(({ name }) => name === 'postgres'))
    expect(one).toMatchObject({
      image: 'berth/postgres:1.4.0',
      secrets: [{ name: 'DSN', required: true }],
      example: expect.stringContaining('secrets: {DSN: {env: DSN}}'),
    })
  })

  test('a name that it does not have', async () => {
    expect(await catalog('memroy')).toEqual({
      code: 1,
      out: '',
      err: 'The catalog has no memroy. Did you mean memory? berth catalog lists what it has.\n',
    })
  })
})
