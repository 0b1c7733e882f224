// The table of settings in envoy/README.md is that of the code. `--update` writes it.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'

import { expect, test } from 'vitest'

import { KNOBS } from '../../src/model/knobs.ts'
import { marksOf, withLines } from '../fixtures/readme.ts'

const GUIDE = join(import.meta.dirname, '..', '..', 'envoy', 'README.md')

test('the guide has every setting with its default and who notices a change', async () => {
  const rows = KNOBS.map(({ key, default: standard, lives, effect, what }) => [
    `\`${key}\``,
    standard,
    what,
    lives,
    effect,
  ])
  const lines = [['setting', 'default', 'what', 'in the', 'a change'], ['---', '---', '---', '---', '---'], ...rows]
  const marks = marksOf('knobs', 'npx vitest run test/compile/guide.test.ts --update')
  const table = lines.map((cells) =>
    `| ${cells.join(' | ')} |`.replace('| --- | --- | --- | --- | --- |', '|---|---|---|---|---|'),
  )
  await expect(withLines(readFileSync(GUIDE, 'utf8'), marks, table)).toMatchFileSnapshot(GUIDE)
})
