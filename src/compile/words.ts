// Words in Envoy's own answers.

/** Envoy refuses a direct response of more than 4,096 bytes, and with it all routes of the service. */
const LONGEST = 1000

export function bounded(words: string): string {
  const short = words.length <= LONGEST ? words : `${words.slice(0, LONGEST - 1)}…`
  // Half a character, as one cut in two leaves behind, is nothing that can be encoded: nobody would be served any more.
  return short.toWellFormed()
}
