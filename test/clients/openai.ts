// The Responses API of OpenAI, which Codex speaks.

import { events, objects, textOf, type Dialect, type Json, type Reply } from './dialect.ts'

export const openai: Dialect = {
  asks: (path) => path.endsWith('/responses'),

  turn(body) {
    return {
      offered: objects(body['tools']).flatMap(({ type, name, tools }) =>
        type === 'namespace'
          ? objects(tools).map((tool) => ({ name: String(tool['name']), namespace: String(name) }))
          : [{ name: String(name) }],
      ),
      results: objects(body['input'])
        .filter(({ type }) => type === 'function_call_output')
        .map(({ output }) => textOf(output)),
    }
  },

  call: ({ name, namespace }, args) =>
    answer({
      type: 'function_call',
      id: 'fc_1',
      call_id: 'call_1',
      name,
      ...(namespace === undefined ? {} : { namespace }),
      arguments: JSON.stringify(args),
      status: 'completed',
    }),

  say: (text) =>
    answer({
      type: 'message',
      id: 'msg_1',
      role: 'assistant',
      status: 'completed',
      content: [{ type: 'output_text', text, annotations: [] }],
    }),
}

function answer(item: Json): Reply {
  const response = { id: 'resp_1', object: 'response', created_at: 0, output: [] }
  const usage = { input_tokens: 1, output_tokens: 1, total_tokens: 2 }
  return events(
    [
      { type: 'response.created', sequence_number: 0, response: { ...response, status: 'in_progress' } },
      { type: 'response.output_item.added', sequence_number: 1, output_index: 0, item },
      { type: 'response.output_item.done', sequence_number: 2, output_index: 0, item },
      {
        type: 'response.completed',
        sequence_number: 3,
        response: { ...response, status: 'completed', output: [item], usage },
      },
    ],
    true,
  )
}
