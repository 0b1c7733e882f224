// The Messages API of Anthropic, which Claude Code speaks.

import { events, json, objects, textOf, type Dialect, type Json, type Reply } from './dialect.ts'

export const anthropic: Dialect = {
  asks: (path) => path.endsWith('/v1/messages'),

  turn(body) {
    const blocks = objects(body['messages']).flatMap(({ content }) => objects(content))
    return {
      offered: objects(body['tools']).map(({ name }) => ({ name: String(name) })),
      results: blocks.filter(({ type }) => type === 'tool_result').map(({ content }) => textOf(content)),
    }
  },

  call: ({ name }, args, _path, body) =>
    answer(
      body,
      { type: 'tool_use', id: 'toolu_1', name, input: args },
      { type: 'input_json_delta', partial_json: JSON.stringify(args) },
      'tool_use',
    ),

  say: (text, _path, body) => answer(body, { type: 'text', text }, { type: 'text_delta', text }, 'end_turn'),
}

/** One content block, streamed if that is asked for. */
function answer(body: Json, block: Json, delta: Json, stop: string): Reply {
  const usage = { input_tokens: 1, output_tokens: 1 }
  const message = { id: 'msg_1', type: 'message', role: 'assistant', model: body['model'], usage }
  if (body['stream'] !== true) return json({ ...message, content: [block], stop_reason: stop, stop_sequence: null })
  const empty = block['type'] === 'text' ? { ...block, text: '' } : { ...block, input: {} }
  return events(
    [
      { type: 'message_start', message: { ...message, content: [], stop_reason: null, stop_sequence: null } },
      { type: 'content_block_start', index: 0, content_block: empty },
      { type: 'content_block_delta', index: 0, delta },
      { type: 'content_block_stop', index: 0 },
      { type: 'message_delta', delta: { stop_reason: stop, stop_sequence: null }, usage },
      { type: 'message_stop' },
    ],
    true,
  )
}
