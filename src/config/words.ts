// Splits a command written as one line into its words, without a shell.

/**
 * The words of `text` as a POSIX shell would split them: blanks separate; single quotes, double quotes and backslashes
 * protect. Nothing is expanded. An unfinished quote, or a sign that only a shell could carry out, is an error that says
 * so, in words that continue a sentence and do not repeat the text (it may hold a secret).
 */
export function splitWords(text: string): { words: string[] } | { error: string } {
  const words: string[] = []
  let word: string | undefined
  let quote = ''
  for (let i = 0; i < text.length; i++) {
    const char = text[i]!
    if (quote === "'") {
      if (char === quote) quote = ''
      else word += char
    } else if (char === '\\') {
      const next = text[++i]
      if (next === undefined) return { error: 'ends with a backslash' }
      // Inside double quotes a backslash protects only these; before anything else it stands for itself.
      if (quote && !'"\\$`\n'.includes(next)) word = (word ?? '') + char
      if (next !== '\n') word = (word ?? '') + next
    } else if (quote) {
      if (char === quote) quote = ''
      else word += char
    } else if (char === "'" || char === '"') {
      quote = char
      word ??= ''
    } else if (/\s/.test(char)) {
      if (word !== undefined) words.push(word)
      word = undefined
    } else if ('|&;<>`'.includes(char)) {
      return { error: `has an unquoted ${char}, which only a shell could carry out` }
    } else {
      word = (word ?? '') + char
    }
  }
  if (quote) return { error: 'has a quote that does not end' }
  if (word !== undefined) words.push(word)
  return { words }
}
