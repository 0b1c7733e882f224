// Starts the ready services for real. The first run installs them, which takes minutes and some 200 MB of downloads.

import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { Client } from '@modelcontextprotocol/sdk/client/index.js'
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'

import type { CatalogEntry } from '../../src/catalog/entry.ts'
import { CATALOG } from '../../src/catalog/entries.ts'
import { defaultsOf } from '../../src/catalog/recipe.ts'
import { describeWithPostgres } from '../bed/postgres.ts'
import { forEach, type Installed, installed, python, runsHere } from './installed.ts'

const AT_ONCE = 3
const INSTALL_MS = 600_000
const START_MS = 60_000
/** The others end without an account, or a database. */
const STARTING = CATALOG.filter(({ secrets }) => secrets.every(({ required }) => !required)).filter(runsHere)
const POSTGRES = CATALOG.find(({ name }) => name === 'postgres')!

let data: string
let servers: ReadonlyMap<string, Installed>

beforeAll(async () => {
  if (python instanceof Error) process.stderr.write(`\n*** ONLY npm's SERVERS ARE STARTED: ${python.message}\n\n`)
  data = await mkdtemp(join(tmpdir(), 'bcat-'))
  servers = await installed([...STARTING, POSTGRES])
}, INSTALL_MS)
afterAll(async () => {
  await rm(data, { recursive: true, force: true })
})

interface Answer {
  readonly server: string
  readonly tools: readonly string[]
}

describe('ready services without an account', () => {
  const answers = new Map<string, Answer | Error>()

  beforeAll(async () => {
    await forEach(STARTING, AT_ONCE, async (entry) => {
      // Root can take the network away; without root they start all the same.
      const alone = process.getuid?.() === 0 ? ['unshare', '--net', '--'] : []
      const answer = withServer(entry, { alone }, async (client) => {
        const { tools } = await client.listTools()
        return { server: client.getServerVersion()!.name, tools: tools.map((tool) => tool.name) }
      })
      answers.set(entry.name, await answer.catch((error: Error) => error))
    })
  }, INSTALL_MS)

  test.each(STARTING.map(({ name }) => name))('%s initializes and lists its tools without a network', (name) => {
    const answer = answers.get(name)
    if (answer instanceof Error) throw answer
    expect(answer!.server).not.toBe('')
    expect(answer!.tools.length).toBeGreaterThan(0)
  })
})

describeWithPostgres('the ready service postgres', (database) => {
  test('lists its tools and queries a real PostgreSQL', async () => {
    const { dsn } = await database()
    const result = await withServer(POSTGRES, { env: { DSN: dsn } }, async (client) => {
      const { tools } = await client.listTools()
      expect(tools.map((tool) => tool.name)).toContain('execute_sql')
      return client.callTool({ name: 'execute_sql', arguments: { sql: 'SELECT 6 * 7 AS answer' } })
    })
    expect(result).toMatchObject({ content: [{ type: 'text', text: expect.stringMatching(/"answer":\s*42/) }] })
  })

  test('ends, and says why, when there is no database', async () => {
    const dsn = 'postgres://nobody@127.0.0.1:1/none'
    await expect(withServer(POSTGRES, { env: { DSN: dsn } }, () => Promise.resolve())).rejects.toThrow(/ECONNREFUSED/)
  })
})

/** Starts the server as its image would, with a folder of this machine for /data; ends it after `use`. */
async function withServer<T>(
  entry: CatalogEntry,
  { alone = [], env = {} }: { alone?: readonly string[]; env?: Readonly<Record<string, string>> },
  use: (client: Client) => Promise<T>,
): Promise<T> {
  const server = servers.get(entry.name)!
  const local = (text: string): string => text.replace(/^\/data(?=\/|$)/, data)
  const defaults = Object.entries(defaultsOf(entry)).map(([name, value]) => [name, local(value)] as const)
  const [command = '', ...args] = [...alone, ...server.command, ...entry.arguments.map(({ text }) => local(text))]
  const transport = new StdioClientTransport({
    command,
    args,
    env: { ...server.env, HOME: data, ...Object.fromEntries(defaults), ...env },
    cwd: data,
    stderr: 'pipe',
  })
  let said = ''
  transport.stderr!.on('data', (chunk: Buffer) => (said = (said + chunk.toString()).slice(-2000)))
  const ended = new Promise((resolve) => transport.stderr!.once('close', resolve))
  const client = new Client({ name: 'berth-test', version: '1.0.0' })
  try {
    await client.connect(transport, { timeout: START_MS })
    return await use(client)
  } catch (error) {
    await client.close()
    await ended
    throw new Error(`${entry.name}: ${(error as Error).message}\n${said}`, { cause: error })
  } finally {
    await client.close()
  }
}
