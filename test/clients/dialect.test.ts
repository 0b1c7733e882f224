// The streams of the fake models, read as a client reads them. Their real test is `npm run clients`.

import { expect, test } from 'vitest'

import { anthropic } from './anthropic.ts'
import type { Dialect, Json, Reply } from './dialect.ts'
import { google } from './google.ts'
import { openai } from './openai.ts'

interface Sample {
  readonly dialect: Dialect
  readonly path: string
  /** A request of the first turn, and what the second adds. */
  readonly first: Json
  readonly second: Json
  readonly tool: { readonly name: string; readonly namespace?: string }
}

const SAMPLES: Readonly<Record<string, Sample>> = {
  anthropic: {
    dialect: anthropic,
    path: '/v1/messages',
    first: {
      model: 'm',
      stream: true,
      tools: [{ name: 'mcp__tools__add', input_schema: {} }],
      messages: [{ role: 'user', content: 'Call it.' }],
    },
    second: {
      messages: [
        { role: 'assistant', content: [{ type: 'tool_use', id: 'toolu_1', name: 'mcp__tools__add', input: {} }] },
        {
          role: 'user',
          content: [{ type: 'tool_result', tool_use_id: 'toolu_1', content: [{ type: 'text', text: '3' }] }],
        },
      ],
    },
    tool: { name: 'mcp__tools__add' },
  },
  openai: {
    dialect: openai,
    path: '/v1/responses',
    first: {
      model: 'm',
      stream: true,
      tools: [{ type: 'namespace', name: 'mcp__tools', tools: [{ type: 'function', name: 'add' }] }],
      input: [{ type: 'message', role: 'user', content: [{ type: 'input_text', text: 'Call it.' }] }],
    },
    second: {
      input: [
        { type: 'function_call', call_id: 'call_1', name: 'add', namespace: 'mcp__tools', arguments: '{}' },
        { type: 'function_call_output', call_id: 'call_1', output: '3' },
      ],
    },
    tool: { name: 'add', namespace: 'mcp__tools' },
  },
  google: {
    dialect: google,
    path: '/v1beta/models/m:streamGenerateContent',
    first: {
      tools: [{ functionDeclarations: [{ name: 'mcp_tools_add' }] }],
      contents: [{ role: 'user', parts: [{ text: 'Call it.' }] }],
    },
    second: {
      contents: [
        { role: 'model', parts: [{ functionCall: { name: 'mcp_tools_add', args: {} } }] },
        { role: 'user', parts: [{ functionResponse: { name: 'mcp_tools_add', response: { output: '3' } } }] },
      ],
    },
    tool: { name: 'mcp_tools_add' },
  },
}
const NAMES = Object.keys(SAMPLES)

test.each(NAMES)('%s: a first turn offers tools, a second brings what one has answered', (name) => {
  const { dialect, first, second, tool, path } = SAMPLES[name]!
  expect(dialect.asks(path)).toBe(true)
  expect(dialect.asks('/v1/models')).toBe(false)
  expect(dialect.turn(first)).toEqual({ offered: [tool], results: [] })
  expect(dialect.turn({ ...first, ...second })).toEqual({ offered: [tool], results: ['3'] })
  expect(dialect.turn({})).toEqual({ offered: [], results: [] })
})

test('anthropic: a call arrives in pieces that a client puts together', () => {
  const { first, path } = SAMPLES['anthropic']!
  const stream = streamed(anthropic.call({ name: 'add' }, { a: 1, b: 2 }, path, first))
  expect(stream.map(({ event, data }) => [event, data['type']])).toEqual(
    [
      'message_start',
      'content_block_start',
      'content_block_delta',
      'content_block_stop',
      'message_delta',
      'message_stop',
    ].map((type) => [type, type]),
  )
  const [, start, delta, , end] = stream.map(({ data }) => data)
  expect(start).toMatchObject({ content_block: { type: 'tool_use', name: 'add', input: {} } })
  const { partial_json } = delta!['delta'] as { partial_json: string }
  expect(JSON.parse(partial_json)).toEqual({ a: 1, b: 2 })
  expect(end).toMatchObject({ delta: { stop_reason: 'tool_use' } })
})

test('anthropic: without a stream, the whole message', () => {
  const { type, body } = anthropic.say('Well.', '/v1/messages', { model: 'm' })
  expect(type).toBe('application/json')
  expect(JSON.parse(body)).toMatchObject({
    type: 'message',
    content: [{ type: 'text', text: 'Well.' }],
    stop_reason: 'end_turn',
  })
})

test('openai: a call is an item that is done, in a response that is completed', () => {
  const { first, path, tool } = SAMPLES['openai']!
  const stream = streamed(openai.call(tool, { a: 1, b: 2 }, path, first))
  const item = { type: 'function_call', ...tool, call_id: 'call_1', arguments: '{"a":1,"b":2}' }
  expect(stream.find(({ event }) => event === 'response.output_item.done')?.data).toMatchObject({ item })
  expect(stream.at(-1)?.data).toMatchObject({
    type: 'response.completed',
    response: { status: 'completed', output: [item], usage: { total_tokens: 2 } },
  })
  expect(stream.map(({ data }) => data['sequence_number'])).toEqual([0, 1, 2, 3])
})

test('google: the same candidate with and without a stream', () => {
  const { first, path } = SAMPLES['google']!
  const candidate = { content: { role: 'model', parts: [{ text: 'Well.' }] }, finishReason: 'STOP' }
  const stream = streamed(google.say('Well.', path, first))
  expect(stream.map(({ data }) => data)).toMatchObject([{ candidates: [candidate] }])
  const whole = google.say('Well.', path.replace('streamG', 'g'), first)
  expect(whole.type).toBe('application/json')
  expect(JSON.parse(whole.body)).toEqual(stream[0]?.data)
})

function streamed({ type, body }: Reply): { event: string | undefined; data: Json }[] {
  expect(type).toBe('text/event-stream')
  expect(body).toMatch(/\n\n$/)
  return body
    .trimEnd()
    .split('\n\n')
    .map((block) => ({
      event: /^event: (.*)$/m.exec(block)?.[1],
      data: JSON.parse(/^data: (.*)$/m.exec(block)![1]!) as Json,
    }))
}
