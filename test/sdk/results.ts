// What the clients on both versions of the TypeScript SDK read and answer.

import { ANSWERS } from './steps.ts'

/** The texts of a result, a message or contents. */
export function textOf(from: object): string {
  return ['content' in from ? from.content : []]
    .flat()
    .map((one) => (one as { text?: string }).text ?? '')
    .join('\n')
}

/** What the model was asked. */
export function questionOf(messages: readonly { readonly content: unknown }[]): string {
  return messages.map((message) => textOf(message)).join('\n')
}

/** What the user says to this. */
export function answerOf(message: string) {
  const content = ANSWERS.user[message]
  return content ? { action: 'accept' as const, content } : { action: 'decline' as const }
}
