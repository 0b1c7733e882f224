// The quickstart configuration: it loads, and its three servers really run.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readdir, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { loadConfig, type Config } from '../../src/config/load.ts'
import { quickstart } from '../../src/config/quickstart.ts'

let folder: string
let config: Config

beforeAll(async () => {
  // A folder that YAML has to quote.
  folder = await mkdtemp(join(tmpdir(), `q's "# `))
  const loaded = loadConfig(await quickstart(folder))
  if ('problems' in loaded) throw new Error(JSON.stringify(loaded.problems))
  config = loaded.config
})

afterAll(() => rm(folder, { recursive: true, force: true }))

test('names three services and their ports', () => {
  expect(config.services.map(({ name, port }) => [name, port])).toEqual([
    ['everything', 11100],
    ['files', 11101],
    ['memory', 11102],
  ])
})

test('starts from scratch and again', async () => {
  expect(loadConfig(await quickstart(folder))).toEqual({ config })
})

/** Runs one exchange with a service's server in an environment that holds nothing but what the configuration says. */
async function exchange(name: string, ...requests: object[]): Promise<Record<string, unknown>[]> {
  const { backend } = config.services.find((service) => service.name === name)!
  if (backend.kind !== 'process') throw new Error('not a process')
  const [program, ...args] = backend.command
  const child = spawn(program!, args, { cwd: backend.cwd, env: { ...backend.env }, stdio: ['pipe', 'pipe', 'ignore'] })
  const ended = once(child, 'close')
  const answers: Record<string, unknown>[] = []
  try {
    const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
    for (const [id, request] of requests.entries()) {
      child.stdin.write(`${JSON.stringify({ jsonrpc: '2.0', id, ...request })}\n`)
      for (;;) {
        const line = await lines.next()
        if (line.done) throw new Error(`${name} ended`)
        const message = JSON.parse(line.value) as Record<string, unknown>
        if (message['id'] !== id || 'method' in message) continue
        answers.push(message['result'] as Record<string, unknown>)
        break
      }
    }
  } finally {
    child.kill('SIGKILL')
    await ended
  }
  return answers
}

const initialize = {
  method: 'initialize',
  params: { protocolVersion: '2025-11-25', capabilities: {}, clientInfo: { name: 'test', version: '1' } },
}

test('each server starts with its own environment only, and answers', async () => {
  for (const { name } of config.services) {
    const [hello] = await exchange(name, initialize)
    expect(hello).toMatchObject({ protocolVersion: '2025-11-25' })
  }
})

test('files may use its folder below the state', async () => {
  const call = { method: 'tools/call', params: { name: 'list_allowed_directories', arguments: {} } }
  const [, answer] = await exchange('files', initialize, call)
  expect(JSON.stringify(answer)).toContain(JSON.stringify(join(folder, 'files')).slice(1, -1))
})

test('memory writes below the state', async () => {
  const entities = [{ name: 'Berth', entityType: 'project', observations: ['has a memory'] }]
  await exchange('memory', initialize, {
    method: 'tools/call',
    params: { name: 'create_entities', arguments: { entities } },
  })
  expect(await readdir(join(folder, 'memory'))).toEqual(['memory.jsonl'])
})
