// Envoy's words for a refusal, without what it quotes: the dump of a resource may hold secrets (envoy-measured.md A §3).

/** Neither logs nor people want more. */
const LENGTH = 300
const LONGEST = 100_000

/** Where Envoy begins to quote a message: its mark for dumps, a field with a text, a field with fields. */
const DUMP = /\s*(?:goo\.gle\/debug|\[type\.googleapis\.com\/|\{\s*"|\b[a-z_][a-z0-9_]*(?::\s*["{]|\s*\{))/
/** A rule of the API that a value broke; before it or behind it stands the whole resource. */
const CONSTRAINT = /Proto constraint validation failed \((?:[^()]|\([^()]*\))*\)/

export function redacted(message: string): string {
  const text = message.slice(0, LONGEST)
  const dump = DUMP.exec(text)?.index ?? text.length
  const constraint = CONSTRAINT.exec(text)
  let words = text.slice(0, dump).replace(/[:\s]+$/, '')
  if (constraint && constraint.index < dump) words = text.slice(0, constraint.index + constraint[0].length)
  else if (constraint) words = words === '' ? constraint[0] : `${words}: ${constraint[0]}`
  else if (words === '') words = message === '' ? 'it says no reason' : 'it quotes the resource instead of a reason'
  return words.length > LENGTH ? `${words.slice(0, LENGTH)}…` : words
}
