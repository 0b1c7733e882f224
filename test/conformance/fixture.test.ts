// The fixture is as strict as its bridge has to be correct: what the suite cannot see over HTTP is tested on its pipes.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'

import { expect, test } from 'vitest'

const FIXTURE = join(import.meta.dirname, 'fixture', 'server.ts')
const PREFIX = 'io.modelcontextprotocol/'
const ALL = { sampling: {}, elicitation: {}, roots: {} }

interface Message {
  readonly id?: unknown
  readonly method?: string
  readonly params?: Record<string, unknown>
  readonly result?: Record<string, unknown>
  readonly error?: { readonly code: number; readonly data?: unknown }
}

class Fixture {
  readonly #child
  readonly #lines
  #last = 0

  constructor(variant: string) {
    this.#child = spawn(process.execPath, [FIXTURE, variant], { stdio: ['pipe', 'pipe', 'inherit'] })
    this.#lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]()
  }

  say(message: unknown): void {
    this.#child.stdin.write(`${JSON.stringify(message)}\n`)
  }

  /** The next message of the server; undefined at its end. */
  async next(): Promise<Message | undefined> {
    const { value, done } = await this.#lines.next()
    return done ? undefined : (JSON.parse(value) as Message)
  }

  /** A request without anything of an era; resolves with the next message, which has to be its response. */
  async request(method: string, params: object = {}): Promise<Message> {
    const id = ++this.#last
    this.say({ jsonrpc: '2.0', id, method, params })
    const response = await this.next()
    expect(response?.id).toBe(id)
    return response!
  }

  modern(method: string, params: object = {}, capabilities: object = ALL): Promise<Message> {
    return this.request(method, { ...params, _meta: meta(capabilities) })
  }

  async initialize(protocolVersion = '2025-11-25', capabilities: object = ALL): Promise<Message> {
    const clientInfo = { name: 'test', version: '1' }
    const response = await this.request('initialize', { protocolVersion, capabilities, clientInfo })
    this.say({ jsonrpc: '2.0', method: 'notifications/initialized' })
    return response
  }

  /** Closes its stdin and resolves with what it still says. */
  async end(): Promise<Message[]> {
    const exit = once(this.#child, 'exit')
    this.#child.stdin.end()
    const rest: Message[] = []
    for (let message = await this.next(); message; message = await this.next()) rest.push(message)
    expect(await exit).toEqual([0, null])
    return rest
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#child.exitCode === null) await this.end()
  }
}

function meta(capabilities: object = ALL): object {
  return { [`${PREFIX}protocolVersion`]: '2026-07-28', [`${PREFIX}clientCapabilities`]: capabilities }
}

test('legacy: one handshake per process, and nothing before it', async () => {
  await using server = new Fixture('legacy')
  expect((await server.request('tools/list')).error?.code).toBe(-32600)
  expect((await server.modern('server/discover')).error?.code).toBe(-32601)
  expect((await server.initialize('2025-06-18')).result).toMatchObject({ protocolVersion: '2025-06-18' })
  expect((await server.initialize()).error?.code).toBe(-32600)
  expect((await server.request('tools/list')).result).toHaveProperty('tools')
})

test('legacy: an unknown revision is answered with the latest', async () => {
  await using server = new Fixture('legacy')
  expect((await server.initialize('1999-01-01')).result).toMatchObject({ protocolVersion: '2025-11-25' })
})

test('legacy: batches belong to 2025-03-26 alone', async () => {
  const batch = [1, 2].map((id) => ({ jsonrpc: '2.0', id, method: 'ping' }))
  await using old = new Fixture('legacy')
  await old.initialize('2025-03-26')
  old.say(batch)
  expect([await old.next(), await old.next()]).toMatchObject([
    { id: 1, result: {} },
    { id: 2, result: {} },
  ])
  await using later = new Fixture('legacy')
  await later.initialize('2025-06-18')
  later.say(batch)
  expect((await later.next())?.error?.code).toBe(-32600)
})

test('legacy: a cancelled call takes its question back and is not answered', async () => {
  await using server = new Fixture('legacy')
  await server.initialize()
  const params = { name: 'test_elicitation', arguments: { message: 'Who?' } }
  server.say({ jsonrpc: '2.0', id: 'call', method: 'tools/call', params })
  const question = await server.next()
  expect(question?.method).toBe('elicitation/create')
  server.say({ jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: 'call' } })
  expect(await server.next()).toMatchObject({ method: 'notifications/cancelled', params: { requestId: question?.id } })
  expect((await server.request('ping')).result).toEqual({})
})

test.each(['legacy', 'modern'])('%s: a call that was cancelled is known by its key', async (era) => {
  await using server = new Fixture(era)
  if (era === 'legacy') await server.initialize()
  const _meta = { ...meta(), progressToken: 'p' }
  const params = { name: 'test_wait_for_cancel', arguments: { key: 'k' }, _meta }
  server.say({ jsonrpc: '2.0', id: 'call', method: 'tools/call', params })
  expect(await server.next()).toMatchObject({ method: 'notifications/progress', params: { progressToken: 'p' } })
  server.say({ jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: 'call' } })
  const { result } = await server.modern('tools/call', { name: 'test_cancelled', arguments: { key: 'k' } })
  expect(result).toMatchObject({ content: [{ text: 'cancelled' }] })
})

test('legacy: logs from the wanted level', async () => {
  await using server = new Fixture('legacy')
  await server.initialize()
  await server.request('logging/setLevel', { level: 'alert' })
  server.say({ jsonrpc: '2.0', id: 9, method: 'tools/call', params: { name: 'test_log_levels' } })
  expect((await server.next())?.params).toMatchObject({ level: 'alert' })
  expect((await server.next())?.params).toMatchObject({ level: 'emergency' })
  expect((await server.next())?.id).toBe(9)
})

test('legacy: a resource that is watched', async () => {
  await using server = new Fixture('legacy')
  await server.initialize()
  await server.request('resources/subscribe', { uri: 'test://watched-resource' })
  server.say({ jsonrpc: '2.0', id: 9, method: 'tools/call', params: { name: 'test_trigger_resource_change' } })
  expect((await server.next())?.params).toEqual({ uri: 'test://watched-resource' })
  expect((await server.next())?.id).toBe(9)
  await server.request('resources/unsubscribe', { uri: 'test://watched-resource' })
  expect((await server.request('tools/call', { name: 'test_trigger_resource_change' })).result).toBeDefined()
})

test('modern: another version and the handshake of before are told what is supported', async () => {
  await using server = new Fixture('modern')
  const supported = { supported: ['2026-07-28'], requested: '2025-11-25' }
  expect((await server.initialize()).error).toMatchObject({ code: -32022, data: supported })
  const other = { _meta: { ...meta(), [`${PREFIX}protocolVersion`]: '2025-11-25' } }
  expect((await server.request('tools/list', other)).error).toMatchObject({ code: -32022, data: supported })
  expect((await server.request('tools/list')).error?.code).toBe(-32602)
})

test('modern: a request state is good for its process, its request and nothing else', async () => {
  await using server = new Fixture('modern')
  await using other = new Fixture('modern')
  const call = { name: 'test_input_required_result_request_state', arguments: {} }
  const { result } = await server.modern('tools/call', call)
  const { requestState, resultType } = result!
  expect(resultType).toBe('input_required')
  const inputResponses = { confirm: { action: 'accept', content: { ok: true } } }
  const retry = { ...call, inputResponses, requestState }
  expect((await other.modern('tools/call', retry)).error?.code).toBe(-32602)
  const stolen = { ...retry, name: 'test_input_required_result_tampered_state' }
  expect((await server.modern('tools/call', stolen)).error?.code).toBe(-32602)
  expect((await server.modern('tools/call', { ...call, inputResponses })).result?.resultType).toBe('input_required')
  const answered = await server.modern('tools/call', retry)
  expect(answered.result).toMatchObject({ resultType: 'complete', content: [{ text: 'state-ok: true' }] })
})

test('modern: two rounds, on one process, from the answers of both', async () => {
  await using server = new Fixture('modern')
  const call = { name: 'test_input_required_result_multi_round', arguments: {} }
  const accept = (content: object) => ({ action: 'accept', content })
  const first = (await server.modern('tools/call', call)).result!
  const second = (
    await server.modern('tools/call', {
      ...call,
      inputResponses: { step1: accept({ name: 'Ada' }) },
      requestState: first.requestState,
    })
  ).result!
  expect(Object.keys(second.inputRequests as object)).toEqual(['step2'])
  const last = await server.modern('tools/call', {
    ...call,
    inputResponses: { step2: accept({ color: 'blue' }) },
    requestState: second.requestState,
  })
  expect(last.result?.content).toEqual([{ type: 'text', text: 'Ada likes blue.' }])
})

test('modern: who lacks a capability is told which', async () => {
  await using server = new Fixture('modern')
  const { error } = await server.modern('tools/call', { name: 'test_missing_capability' }, {})
  expect(error).toMatchObject({ code: -32021, data: { requiredCapabilities: { sampling: {} } } })
})

test('modern: logs go only to the request that wants them', async () => {
  await using server = new Fixture('modern')
  const call = { name: 'test_logging_tool' }
  expect((await server.modern('tools/call', call)).result?.resultType).toBe('complete')
  const params = { ...call, _meta: { ...meta(), [`${PREFIX}logLevel`]: 'debug' } }
  server.say({ jsonrpc: '2.0', id: 'loud', method: 'tools/call', params })
  expect((await server.next())?.method).toBe('notifications/message')
  expect((await server.next())?.id).toBe('loud')
})

test('modern: an id cannot be used twice at once', async () => {
  await using server = new Fixture('modern')
  const listen = { jsonrpc: '2.0', id: 1, method: 'subscriptions/listen', params: { notifications: {}, _meta: meta() } }
  server.say(listen)
  expect((await server.next())?.method).toBe('notifications/subscriptions/acknowledged')
  server.say(listen)
  expect((await server.next())?.error?.code).toBe(-32600)
})

test('modern: subscriptions get what they asked for, under their own id, until their end', async () => {
  await using server = new Fixture('modern')
  const listen = async (id: string | number, notifications: object) => {
    server.say({ jsonrpc: '2.0', id, method: 'subscriptions/listen', params: { notifications, _meta: meta() } })
    return (await server.next())?.params
  }
  const own = (id: unknown) => ({ _meta: { [`${PREFIX}subscriptionId`]: id } })
  expect(await listen('tools', { toolsListChanged: true, resourcesListChanged: true })).toEqual({
    ...own('tools'),
    notifications: { toolsListChanged: true },
  })
  await listen('prompts', { promptsListChanged: true })
  await listen(7, { resourceSubscriptions: ['test://watched-resource'] })
  for (const [change, method, id] of [
    ['tool', 'notifications/tools/list_changed', 'tools'],
    ['resource', 'notifications/resources/updated', 7],
  ] as const) {
    server.say({
      jsonrpc: '2.0',
      id: 0,
      method: 'tools/call',
      params: { name: `test_trigger_${change}_change`, _meta: meta() },
    })
    expect(await server.next()).toMatchObject({ method, params: own(id) })
    expect((await server.next())?.id).toBe(0)
  }
  server.say({ jsonrpc: '2.0', method: 'notifications/cancelled', params: { requestId: 'tools' } })
  expect((await server.modern('tools/call', { name: 'test_trigger_tool_change' })).result).toBeDefined()
  expect(await server.end()).toMatchObject([
    { id: 'prompts', result: { resultType: 'complete', ...own('prompts') } },
    { method: 'notifications/cancelled', params: { requestId: 'prompts' } },
    { id: 7, result: { resultType: 'complete', ...own(7) } },
    { method: 'notifications/cancelled', params: { requestId: 7 } },
  ])
})

test('dual: the first request that tells an era decides for the life of the process', async () => {
  await using modern = new Fixture('dual')
  expect((await modern.request('ping')).result).toEqual({})
  expect((await modern.modern('server/discover')).result).toMatchObject({ supportedVersions: ['2026-07-28'] })
  expect((await modern.initialize()).error?.code).toBe(-32022)
  await using legacy = new Fixture('dual')
  expect((await legacy.initialize()).result).toMatchObject({ protocolVersion: '2025-11-25' })
  expect((await legacy.modern('tools/list')).result).not.toHaveProperty('resultType')
  expect((await legacy.modern('server/discover')).error?.code).toBe(-32601)
})
