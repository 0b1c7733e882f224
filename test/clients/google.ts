// The generateContent API of Google, which Gemini CLI speaks.

import { events, json, objects, type Dialect, type Json, type Reply } from './dialect.ts'

export const google: Dialect = {
  asks: (path) => /:(streamG|g)enerateContent$/.test(path),

  turn(body) {
    const parts = objects(body['contents']).flatMap(({ parts }) => objects(parts))
    return {
      offered: objects(body['tools'])
        .flatMap(({ functionDeclarations }) => objects(functionDeclarations))
        .map(({ name }) => ({ name: String(name) })),
      results: parts.flatMap(({ functionResponse }) => resultOf(functionResponse as Json | undefined)),
    }
  },

  call: ({ name }, args, path) => answer(path, { functionCall: { name, args } }),
  say: (text, path) => answer(path, { text }),
}

/** Gemini CLI puts the texts of a result under `output`. */
function resultOf(answered: Json | undefined): string[] {
  if (answered === undefined) return []
  const response = answered['response'] as Json | undefined
  const output = response?.['output']
  return [typeof output === 'string' ? output : JSON.stringify(response ?? null)]
}

function answer(path: string, part: Json): Reply {
  const message = {
    candidates: [{ index: 0, content: { role: 'model', parts: [part] }, finishReason: 'STOP' }],
    usageMetadata: { promptTokenCount: 1, candidatesTokenCount: 1, totalTokenCount: 2 },
  }
  return path.endsWith(':streamGenerateContent') ? events([message], false) : json(message)
}
