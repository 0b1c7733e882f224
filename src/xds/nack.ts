// Envoy's words for a refusal, without what it quotes: the dump of a resource may hold secrets (envoy-measured.md A §3).

/** Neither logs nor people want more. */
const LENGTH = 300

/** Where Envoy begins to quote a message: its mark for dumps, a field with a text, a field with fields. */
const DUMP = /\s*(?:goo\.gle\/debug|\[type\.googleapis\.com\/|\{\s*"|\b[a-z_][a-z0-9_]*(?::\s*["{]|\s*\{))/
/** A rule of the API that a value broke; behind it stands the whole resource. */
const CONSTRAINT = /^([\s\S]*?Proto constraint validation failed \((?:[^()]|\([^()]*\))*\))/

export function redacted(message: string): string {
  const constraint = CONSTRAINT.exec(message.slice(0, 100_000))?.[1]
  const text = constraint ?? message
  const dump = constraint === undefined ? DUMP.exec(text) : null
  const words = dump ? `${text.slice(0, dump.index).replace(/[:\s]+$/, '')} …` : text
  return words.length > LENGTH ? `${words.slice(0, LENGTH)}…` : words
}
