// Splitting a command line into words without a shell.

import { expect, test } from 'vitest'
import { splitWords } from '../../src/config/words.ts'

const SPLIT: [text: string, words: string[]][] = [
  ['', []],
  [' \t\n ', []],
  ['node server.js', ['node', 'server.js']],
  ['  a   b  ', ['a', 'b']],
  [`'a b' "c d" e\\ f`, ['a b', 'c d', 'e f']],
  [`a'b'"c"d`, ['abcd']],
  [`'' ""`, ['', '']],
  [`'$HOME \\ "x" | y'`, ['$HOME \\ "x" | y']],
  [`"$HOME \\$ \\" \\\\ \\x ; y"`, ['$HOME $ " \\ \\x ; y']],
  ['a\\\nb', ['ab']],
  ['"a\\\nb"', ['ab']],
  ['$HOME ~ * ?', ['$HOME', '~', '*', '?']],
  [`\\' \\"`, [`'`, `"`]],
]

for (const [text, words] of SPLIT) {
  test(`splits ${JSON.stringify(text)}`, () => expect(splitWords(text)).toEqual({ words }))
}

for (const text of ['a | b', 'a&&b', 'a; b', 'a > b', 'a < b', 'a `b`', `'a`, '"a', '"a\\"', 'a\\']) {
  test(`refuses ${JSON.stringify(text)}`, () => expect(splitWords(text)).toEqual({ error: expect.any(String) }))
}
