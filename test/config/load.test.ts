// The configuration as a whole: inputs and what loading them gives, side by side in mistakes/ and valid/.

import { readdirSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import * as fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { loadConfig } from '../../src/config/load.ts'
import { problemLine } from '../../src/model/problem.ts'

const MISTAKES = join(import.meta.dirname, 'mistakes')
const VALID = join(import.meta.dirname, 'valid')

// Ends in `.in` and `.out` so that no formatter touches what is meant to be as it is.
const named = (folder: string, ending: string) =>
  readdirSync(folder)
    .filter((name) => name.endsWith(ending))
    .map((name) => basename(name, ending))
const inputs = (folder: string) => named(folder, '.in')
const read = (folder: string, name: string) => readFileSync(join(folder, `${name}.in`), 'utf8')

function load(text: string, file = 'berth.yaml') {
  return loadConfig({ text, file, folder: '/etc/berth' })
}

function problems(text: string, file?: string) {
  const loaded = load(text, file)
  return 'problems' in loaded ? loaded.problems : []
}

function config(text: string, file?: string) {
  const loaded = load(text, file)
  if ('problems' in loaded) throw new Error(loaded.problems.map(problemLine).join('\n'))
  return loaded.config
}

describe('a configuration with mistakes', () => {
  for (const name of inputs(MISTAKES)) {
    test(name, async () => {
      const text = read(MISTAKES, name)
      const found = problems(text, name)
      expect(found).not.toEqual([])
      const lines = found.map((problem) => `${problemLine(problem)}\n`).join('')
      expect(lines).not.toContain('do-not-show-this')
      await expect(lines).toMatchFileSnapshot(join(MISTAKES, `${name}.out`))
    })
  }

  test('every expected answer has its input', () => {
    expect(inputs(MISTAKES)).toEqual(expect.arrayContaining(named(MISTAKES, '.out')))
  })

  test('names the file as it was named, and the line from 1', () => {
    expect(problems('\n\nbnd: x', 'conf/my.yaml')).toMatchObject([{ where: 'conf/my.yaml:3' }])
  })

  test('ends in words that stay on one line, whatever the names are', () => {
    const text = JSON.stringify({ services: { 'a\u001b[2J\nb\u2028c': { command: ['x'] } } })
    const lines = problems(text).map(problemLine)
    expect(lines).toHaveLength(1)
    expect(lines[0]).not.toMatch(/[\p{Cc}\u2028]/u)
  })
})

describe('a valid configuration', () => {
  test('is the same in whatever order variables are written', () => {
    const backend = (env: string) => {
      const text = `services: {a: {command: [x], env: ${env}, secrets: {P: {env: p}, O: {env: o}}}}`
      const loaded = loadConfig({ text, file: 'berth.yaml', folder: '/etc/berth' })
      return 'config' in loaded && JSON.stringify(loaded.config.services[0]!.backend)
    }
    expect(backend('{B: two, A: one}')).toBe(backend('{A: one, B: two}'))
  })

  for (const name of inputs(VALID)) {
    test(name, async () => {
      const text = read(VALID, name)
      const snapshot = `${JSON.stringify(config(text, name), null, 2)}\n`
      await expect(snapshot).toMatchFileSnapshot(join(VALID, `${name}.out`))
    })
  }

  test('every expected answer has its input', () => {
    expect(inputs(VALID)).toEqual(expect.arrayContaining(named(VALID, '.out')))
  })

  test('is the same in JSON as in YAML', () => {
    const yaml = 'services:\n  a:\n    command: [node, "1"]\n    port: 11105\n    limits: {queue: 3}\n'
    const json = '{"services":\n{"a":\n{"command":["node",1],"port":11105,"limits":{"queue":"3"}}}}'
    expect(config(json)).toEqual(config(yaml))
  })

  test('makes no difference between a key that is absent and one that is empty', () => {
    const full = 'services:\n  a:\n    command: [x]\n'
    const empty =
      '    port:\n    env: ~\n    limits: null\n    clients:\nclients:\ntiers:\nauth:\nports:\nbind:\ndocker:\n'
    expect(config(full + empty)).toEqual(config(full))
  })
})

describe('any text', () => {
  const valid = inputs(VALID).map((name) => read(VALID, name))

  /** Loading ends in a configuration without problems or in problems without a configuration, in order of lines. */
  function holds(text: string) {
    const loaded = load(text)
    if ('config' in loaded) {
      for (const { backend } of loaded.config.services) {
        const what = { process: 'command', image: 'image', containers: 'nothing' }[backend.kind]
        expect(Object(backend)[what]).not.toHaveLength(0)
      }
      return
    }
    expect(loaded.problems.length).toBeGreaterThan(0)
    expect(loaded.problems.length).toBeLessThanOrEqual(100)
    const lines = loaded.problems.map(({ where }) => Number(/^berth\.yaml:(\d+)$/.exec(where)![1]))
    expect(lines).toEqual([...lines].sort((a, b) => a - b))
    for (const { message, remedy } of loaded.problems) {
      expect(message).toMatch(/^[`\w].*\.$/s)
      expect(remedy).toMatch(/[.?]$/)
    }
  }

  test('loads or has problems', () => {
    const sign = fc.constantFrom(...'{}[]:,-&*!|>\'"%@`?# \n\tab'.split(''))
    fc.assert(fc.property(fc.string({ unit: 'binary', maxLength: 200 }), holds))
    fc.assert(fc.property(fc.string({ unit: sign, maxLength: 60 }), holds))
  })

  test('mutated from a valid configuration loads or has problems', () => {
    const mutated = fc
      .tuple(fc.constantFrom(...valid), fc.nat(), fc.nat(40), fc.string({ maxLength: 12 }))
      .map(([text, at, length, inserted]) => {
        const start = at % (text.length + 1)
        return text.slice(0, start) + inserted + text.slice(start + length)
      })
    fc.assert(fc.property(mutated, holds), { numRuns: 500 })
  })

  test('of known keys over any values loads or has problems', () => {
    const keys =
      'services mcpServers mcp clients tiers auth docker consul ports bind name command env secrets tools port limits ' +
      'jwt wrapper tier host url 0 x'
    const key = fc.constantFrom(...keys.split(' '))
    const { tree } = fc.letrec((tie) => ({
      tree: fc.oneof(
        { maxDepth: 5 },
        fc.constantFrom(null, '', 'x', 'none', 11_100, true, 'tcp://h'),
        fc.dictionary(key, tie('tree'), { maxKeys: 5 }),
        fc.array(tie('tree'), { maxLength: 3 }),
      ),
    }))
    const document = fc.dictionary(key, tree, { maxKeys: 5 })
    fc.assert(
      fc.property(document, (value) => holds(JSON.stringify(value))),
      { numRuns: 1000 },
    )
  })

  test('nested deeper than any stack has a problem', () => {
    holds('['.repeat(200_000))
    holds(`${'{"a":'.repeat(20_000)}1${'}'.repeat(20_000)}`)
    holds('- '.repeat(20_000))
  })

  test('that refers to itself has a problem or loads', () => {
    holds('services: &s {a: *s}')
    holds('&a [*a]')
  })
})
