// Names: what is accepted, what is made of them, and what was meant by a misspelled one.

import fc from 'fast-check'
import { describe, expect, test } from 'vitest'

import {
  CLIENT_NAME,
  clusterName,
  EVERYONE,
  globMatches,
  nearest,
  SERVICE_NAME,
  slotOfCluster,
  streamClusterName,
} from '../../src/model/names.ts'

describe('service and client names', () => {
  test.for(['a', 'files', 'my-files-2', 'x'.repeat(63)])('%s is a service name', (name) => {
    expect(name).toMatch(SERVICE_NAME)
  })
  test.for(['', '-a', 'a-', 'A', 'a.b', 'a|b', 'ä', 'x'.repeat(64), 'a\n'])('%j is no service name', (name) => {
    expect(name).not.toMatch(SERVICE_NAME)
  })
  test.for(['', '*', '.a', 'a|b', 'a@b', 'a/b', 'a b', 'ä', 'x'.repeat(64), 'a\n'])('%j is no client name', (name) => {
    expect(name).not.toMatch(CLIENT_NAME)
  })
})

describe('cluster names', () => {
  test('lead back to their slot', () => {
    const service = fc.stringMatching(new RegExp(SERVICE_NAME.source))
    const group = fc.oneof(fc.constant(EVERYONE), fc.stringMatching(new RegExp(CLIENT_NAME.source)))
    fc.assert(
      fc.property(service, group, fc.nat(), (name, client, generation) => {
        const slot = { service: name, group: client, generation }
        expect(slotOfCluster(clusterName(name, client, generation))).toEqual(slot)
        expect(slotOfCluster(streamClusterName(name, client, generation))).toEqual(slot)
      }),
    )
  })

  test.for(['', 'xds', 'a|b', 'a|b@x', 'a|b@1|other', '|b@1'])('%j is no cluster of Berth', (name) => {
    expect(slotOfCluster(name)).toBeUndefined()
  })
})

describe('globs', () => {
  test.for([
    ['*', '', true],
    ['*', 'anything', true],
    ['a*', 'abc', true],
    ['a*', 'b', false],
    ['*c', 'abc', true],
    ['a*c', 'ac', true],
    ['a*c', 'a', false],
    ['ab*ba', 'aba', false],
    ['a*b*c', 'a-b-c', true],
    ['a.c', 'abc', false],
    ['a', 'a', true],
    ['a', 'ab', false],
  ] as const)('%s on %j: %s', ([glob, name, expected]) => {
    expect(globMatches(glob, name)).toBe(expected)
  })

  test('agree with a regular expression', () => {
    const text = fc.stringMatching(/^[ab]{0,8}$/)
    fc.assert(
      fc.property(fc.stringMatching(/^[ab*]{0,8}$/), text, (glob, name) => {
        expect(globMatches(glob, name)).toBe(new RegExp(`^${glob.replaceAll('*', '.*')}$`).test(name))
      }),
      { numRuns: 1000 },
    )
  })
})

test.for([
  ['isolaton', 'isolation'],
  ['Command', 'command'],
  ['prot', 'port'],
  ['zzzzzz', undefined],
] as const)('nearest to %s is %s', ([name, expected]) => {
  expect(nearest(name, ['command', 'port', 'isolation', 'env'])).toBe(expected)
})
