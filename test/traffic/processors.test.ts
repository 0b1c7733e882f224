// When the processors have nothing left, by what the kernel says.

import { expect, test } from 'vitest'

import { Processors } from '../../src/traffic/processors.ts'

function told(...lines: readonly string[]): boolean[] {
  let at = 0
  const processors = new Processors(() => lines[at++]!)
  return lines.slice(1).map(() => processors.busy())
}

test('they are busy while less than a tenth of the time was without work', () => {
  expect(told('cpu  100 0 0 100', 'cpu  190 0 0 110', 'cpu  281 0 0 119', 'cpu  300 0 0 200')).toEqual([
    false,
    true,
    false,
  ])
})

test('waiting for a disk is no work', () => {
  expect(told('cpu  0 0 0 0 0', 'cpu  50 0 0 0 50')).toEqual([false])
})

test('what was before counts until enough time has passed', () => {
  expect(told('cpu  0 0 0 0', 'cpu  100 0 0 0', 'cpu  100 0 0 5', 'cpu  100 0 0 20')).toEqual([true, true, false])
})

test('where nobody can say, they are not', () => {
  const processors = new Processors(() => {
    throw new Error('no such file')
  })
  expect(processors.busy()).toBe(false)
  expect(new Processors(() => 'nonsense').busy()).toBe(false)
  expect(typeof new Processors().busy()).toBe('boolean')
})
