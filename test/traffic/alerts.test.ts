// The alert rules that are shipped: read and run by promtool.

import { join } from 'node:path'

import { expect, test } from 'vitest'

import { runPromtool } from '../bed/promtool.ts'

const RULES = join(import.meta.dirname, '..', '..', 'envoy', 'alerts.yaml')
/** The package is fetched once. */
const FETCH_MS = 300_000

test('the alert rules are valid', { timeout: FETCH_MS }, async () => {
  const { code, said } = await runPromtool(['check', 'rules', RULES])
  expect(said).toContain('3 rules found')
  expect(code).toBe(0)
})

test('the alerts fire when they shall, and only then', { timeout: FETCH_MS }, async () => {
  expect(await runPromtool(['test', 'rules', join(import.meta.dirname, 'alerts.yaml')])).toMatchObject({ code: 0 })
})
