import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import { afterEach, beforeEach, describe, expect, test } from 'vitest'

import { type Command, type CommandContext, UsageError } from '../../src/commands/command.ts'
import { COMMANDS } from '../../src/commands/commands.ts'
import { OperatorError } from '../../src/model/operator-error.ts'
import { berth } from './berth.ts'

let cwd: string
let seen: CommandContext | undefined

beforeEach(async () => {
  cwd = await mkdtemp(join(tmpdir(), 'bcl-'))
  seen = undefined
})
afterEach(async () => {
  await rm(cwd, { recursive: true, force: true })
})

const tie: Command = {
  name: 'tie',
  summary: 'Tie a ship.',
  usage: '<ship> [rope]',
  options: {
    knots: { type: 'string', value: 'N', summary: 'How many knots.' },
    tight: { type: 'boolean', summary: 'T.' },
  },
  run(context) {
    seen = context
    context.print('tied')
    context.note('careful')
    return Promise.resolve(0)
  },
}

function failing(error: Error): Command {
  const run = async () => {
    throw error
  }
  return { ...tie, name: 'sink', usage: '', run }
}

const run = (argv: string[], env: Record<string, string> = {}, commands = [tie]) => berth(argv, { cwd, env, commands })

describe('what a command is given', () => {
  test('arguments, its own options, and the global ones from before and after its name', async () => {
    const ran = await run(['--home', 'state', 'tie', 'argo', '--knots=3', 'hemp', '--json', '--tight'])
    expect(ran).toEqual({ code: 0, out: 'tied\n', err: 'careful\n' })
    expect(seen).toMatchObject({
      args: ['argo', 'hemp'],
      options: { knots: '3', tight: true },
      json: true,
      home: join(cwd, 'state'),
      cache: join(cwd, 'state', 'cache'),
      config: undefined,
      version: '1.2.3',
    })
  })

  test('the configuration and the state folder beside it: option, then environment, then working directory', async () => {
    const env = { BERTH_CONFIG: 'there/b.yaml', BERTH_HOME: '', BERTH_CACHE: '' }
    await run(['tie', 'argo', '-c', 'here/a.yaml'], env)
    expect(seen).toMatchObject({ config: { path: join(cwd, 'here/a.yaml') }, home: join(cwd, 'here/.berth') })
    await run(['tie', 'argo'], env)
    expect(seen).toMatchObject({ config: { path: join(cwd, 'there/b.yaml') }, home: join(cwd, 'there/.berth') })
    await run(['tie', 'argo'], { BERTH_HOME: 'h', BERTH_CACHE: 'c' })
    expect(seen).toMatchObject({ config: undefined, home: join(cwd, 'h'), cache: join(cwd, 'c') })
    await writeFile(join(cwd, 'berth.yaml'), '')
    await run(['tie', 'argo'])
    expect(seen).toMatchObject({ config: { name: 'berth.yaml' }, home: join(cwd, '.berth') })
  })
})

describe('exit code 2: the command line is wrong, and nothing runs', () => {
  test.each<[string[], string]>([
    [['tei'], 'There is no command tei. Did you mean berth tie? berth help lists them all.'],
    [['moor'], 'There is no command moor. berth help lists them all.'],
    [['tie'], '<ship> is missing: berth tie <ship> [rope]'],
    [['tie', 'a', 'b', 'c'], 'c is one argument too many: berth tie <ship> [rope]'],
    [['tie', 'a', '--knot', '3'], 'berth tie has no option --knot. Did you mean --knots? berth tie --help lists them.'],
    [['tie', 'a', '-x'], 'berth tie has no option -x. berth tie --help lists them.'],
    [['--nothing'], 'berth has no option --nothing. berth --help lists them.'],
    [['tie', 'a', '--knots'], "Option '--knots <value>' argument missing."],
    [['tie', 'a', '--tight=yes'], "Option '--tight' does not take an argument."],
  ])('%j', async (argv, err) => {
    expect(await run(argv)).toEqual({ code: 2, out: '', err: `${err}\n` })
    expect(seen).toBeUndefined()
  })

  test('or the command says so', async () => {
    const ran = await run(['sink'], {}, [failing(new UsageError('Sink what?'))])
    expect(ran).toEqual({ code: 2, out: '', err: 'Sink what?\n' })
  })
})

test("exit code 1 for an operator's error, with its message alone; a bug is not caught", async () => {
  const ran = await run(['sink'], {}, [failing(new OperatorError('No water.\nFill the basin.'))])
  expect(ran).toEqual({ code: 1, out: '', err: 'No water.\nFill the basin.\n' })
  const bug = new TypeError('x is undefined')
  await expect(run(['sink'], {}, [failing(bug)])).rejects.toBe(bug)
})

describe('help', () => {
  test.each([[['tie', '--help']], [['--help', 'tie']], [['tie', '-h', 'too', 'many', 'words']]])('%j', async (argv) => {
    const { code, out } = await run(argv)
    expect(code).toBe(0)
    expect(out).toMatchInlineSnapshot(`
      "Usage: berth tie <ship> [rope]

      Tie a ship.

        --knots N          How many knots.
        --tight            T.
        -c, --config FILE  The configuration (else $BERTH_CONFIG, ./berth.yaml).
        --home DIR         The state folder (else $BERTH_HOME, .berth beside the configuration).
        --json             Write one JSON document to standard output.
        -h, --help         Explain the command.
      "
    `)
    expect(seen).toBeUndefined()
  })

  test('lists every command, with and without its name, and explains each', async () => {
    const { out } = await berth([], { cwd })
    expect(await berth(['help'], { cwd })).toEqual({ code: 0, out, err: '' })
    expect(await berth(['--help'], { cwd })).toEqual({ code: 0, out, err: '' })
    for (const { name, summary } of COMMANDS) {
      expect(out).toContain(`  ${name} `)
      const { out: explained } = await berth(['help', name], { cwd })
      expect(explained).toContain(summary)
      expect((await berth([name, '--help'], { cwd })).out).toBe(explained)
    }
    expect(await berth(['help', 'lss'], { cwd })).toMatchObject({
      code: 2,
      err: expect.stringContaining('Did you mean berth ls?'),
    })
  })

  test('--version', async () => {
    expect(await berth(['--version'], { cwd })).toEqual({ code: 0, out: '1.2.3\n', err: '' })
  })
})
