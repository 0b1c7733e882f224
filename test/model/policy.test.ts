import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'

import { idleToolLists, policiesOf, policyOf, toolAllowed } from '../../src/model/policy.ts'
import { client, container, containers, service } from '../fixtures/world.ts'

describe('the policy of a client at a service', () => {
  test.each([
    ['says nothing where nobody does', undefined, undefined, {}],
    ['says nothing where all are allowed', { allow: ['*'], deny: [] }, { a: ['*'] }, {}],
    ['is what the service says', { allow: ['r*'] }, undefined, { tools: { allow: [['r*']], deny: [] } }],
    [
      'is what both say',
      { allow: ['r*'], deny: ['rm'] },
      { a: ['x'] },
      { tools: { allow: [['r*'], ['x']], deny: ['rm'] } },
    ],
    ['is of this service', { allow: ['r*'] }, { b: ['x'] }, { tools: { allow: [['r*']], deny: [] } }],
    [
      'is of the others where this is not named',
      undefined,
      { b: ['x'], '*': [] },
      { tools: { allow: [[]], deny: [] } },
    ],
    ['is of this one where it is named', undefined, { a: ['x'], '*': [] }, { tools: { allow: [['x']], deny: [] } }],
  ])('%s', (_, tools, own, expected) => {
    expect(policyOf({ name: 'a', ...(tools && { tools }) }, { ...(own && { tools: own }) })).toEqual(expected)
  })

  test('is not that of a name which every object has', () => {
    expect(policyOf({ name: 'constructor' }, { tools: { a: ['x'] } })).toEqual({})
  })
})

describe('the policies of a slot', () => {
  const restricted = client('alice', { tools: { a: ['x'] } })
  const all = [restricted, client('bob'), client('carol', { services: ['b'] })]

  test('are none where no client is restricted', () => {
    expect(policiesOf(service('a', { isolation: 'shared' }), '*', all.slice(1))).toBeUndefined()
    expect(policiesOf(service('a'), 'bob', all)).toBeUndefined()
  })

  test('name every client of the group, and nobody else', () => {
    const own = { tools: { allow: [['x']], deny: [] } }
    expect(policiesOf(service('a', { isolation: 'shared' }), '*', all)).toEqual({ alice: own, bob: {} })
    expect(policiesOf(service('a'), 'alice', all)).toEqual({ alice: own })
    const backend = containers(container('bobs', { client: 'bob' }), container('others'))
    expect(policiesOf(service('a', { backend }), '*', all)).toEqual({ alice: own })
  })
})

test('lists of tools for services that are not there are told', () => {
  const clients = [client('alice', { tools: { a: [], aa: [], '*': [] } }), client('bob')]
  expect(idleToolLists(clients, [service('a')])).toMatchObject([
    {
      about: 'client alice',
      where: 'clients.alice.tools',
      message: expect.stringContaining('no service aa') as string,
    },
  ])
})

describe('a tool', () => {
  test.each([
    ['read', [], [], true],
    ['read', [['r*']], [], true],
    ['read', [['r*', 'w*'], ['*d']], [], true],
    ['read', [['r*'], ['w*']], [], false],
    ['read', [[]], [], false],
    ['Read', [['read']], [], false],
    ['read', [], ['r*'], false],
    ['Read', [], ['read'], false],
    ['read', [], ['READ'], false],
    ['ｒｅａｄ', [], ['read'], false],
    ['re\u200bad', [], ['read'], false],
    ['read ', [], ['read'], false],
    ['read\u0000', [], ['read'], false],
    ['\ud800read', [], ['read'], false],
    ['ﬁle', [], ['file'], false],
    ['ſeek', [], ['seek'], false],
    ['lıst', [], ['list'], false],
    ['reader', [], ['read'], true],
    ['lesen', [], ['read'], true],
    ['读取', [['读*']], [], true],
  ])('%j with %j without %j: %j', (name, allow, deny, expected) => {
    expect(toolAllowed({ allow, deny }, name)).toBe(expected)
  })

  test('that is denied is denied in every spelling that only adds what nobody sees', () => {
    const unseen = fc.constantFrom(' ', '\t', '\u00a0', '\u200b', '\u2060', '\ufeff', '\u0000', '\u202e')
    fc.assert(
      fc.property(fc.array(unseen, { maxLength: 4 }), fc.nat(6), fc.boolean(), (more, at, upper) => {
        const name = upper ? 'DELETE' : 'delete'
        return !toolAllowed({ allow: [], deny: ['del*'] }, name.slice(0, at) + more.join('') + name.slice(at))
      }),
    )
  })
})
