import { expect, test } from 'vitest'

import { TIERS } from '../../src/model/client.ts'
import { limitsOf } from '../../src/model/limits.ts'
import { client } from '../fixtures/world.ts'

test('a client has the limits of its tier, or its own', () => {
  expect(limitsOf({ name: 'a' }, client('x', { tier: 'free' }))).toEqual({ tier: 'free', perMinute: 60, concurrent: 5 })
  expect(limitsOf({ name: 'a' }, client('x', { tier: 'enterprise' }))).toEqual({ tier: 'enterprise', concurrent: 100 })
  const granted = { ...TIERS['pro']!, perMinute: 7 }
  expect(limitsOf({ name: 'a' }, client('x', { tier: 'own', granted }))).toEqual({
    tier: 'own',
    perMinute: 7,
    concurrent: 20,
  })
})

test('of limits of tools those count that fit the service, and of two for the same tools the smaller', () => {
  const toolLimits = {
    'fi*': { 'read_*': { perMinute: 10, concurrent: 3 }, x: {} },
    files: { 'read_*': { perMinute: 20, concurrent: 1 } },
    other: { y: { perMinute: 1 } },
  }
  expect(limitsOf({ name: 'files' }, client('x', { toolLimits })).tools).toEqual({
    'read_*': { perMinute: 10, concurrent: 1 },
    x: {},
  })
  expect(limitsOf({ name: 'none' }, client('x', { toolLimits }))).not.toHaveProperty('tools')
})
