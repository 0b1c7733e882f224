// Reads a command line, runs its command, and turns what happened into words and an exit code: 0, 1 failed, 2 wrong usage.

import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'

import { findConfigFile } from '../config/file.ts'
import { nearest } from '../model/names.ts'
import { OperatorError } from '../model/operator-error.ts'
import { type Command, type CommandContext, type CommandOption, UsageError } from './command.ts'
import { GLOBAL_OPTIONS } from './global-options.ts'
import { commandHelp, overview } from './help-text.ts'
import { unknownCommand } from './help.ts'

/** The process around a command line. */
export type Surroundings = Pick<CommandContext, 'env' | 'stdout' | 'stderr' | 'version'> & {
  readonly cwd: string
}

/** Runs `argv` (without the program's name) and resolves to the exit code. Rejects only for a bug. */
export async function runCommandLine(
  commands: readonly Command[],
  argv: readonly string[],
  around: Surroundings,
): Promise<number> {
  const print = (text: string) => void around.stdout.write(`${text}\n`)
  const note = (text: string) => void around.stderr.write(`${text}\n`)
  try {
    const { name, rest } = splitName(argv)
    if (name === undefined) {
      const { version } = parse('berth', { ...GLOBAL_OPTIONS, ...VERSION }, rest).values
      print(version === true ? around.version : overview(commands))
      return 0
    }
    const command = commands.find((each) => each.name === name)
    if (!command) throw unknownCommand(commands, name)
    const { values, positionals } = parse(`berth ${name}`, { ...GLOBAL_OPTIONS, ...command.options }, rest)
    if (values['help'] === true) {
      print(commandHelp(command))
      return 0
    }
    checkArguments(command, positionals)
    const { config: flag, home, json, ...options } = values
    const places = await placesOf(text(flag), text(home), around)
    return await command.run({ ...around, ...places, args: positionals, options, json: json === true, print, note })
  } catch (error) {
    if (error instanceof UsageError) {
      note(error.message)
      return 2
    }
    if (error instanceof OperatorError) {
      note(error.message)
      return 1
    }
    throw error
  }
}

const VERSION = { version: { type: 'boolean', summary: 'Print the version.' } } as const

type Values = Readonly<Record<string, string | boolean | undefined>>

/** The command's name is the first argument that is neither an option nor a global option's value. */
function splitName(argv: readonly string[]): { name: string | undefined; rest: string[] } {
  const { tokens } = parseArgs({ args: [...argv], options: GLOBAL_OPTIONS, strict: false, tokens: true })
  const first = tokens.find(({ kind }) => kind === 'positional')
  if (!first) return { name: undefined, rest: [...argv] }
  return { name: argv[first.index], rest: argv.toSpliced(first.index, 1) }
}

function parse(
  program: string,
  options: Readonly<Record<string, CommandOption>>,
  args: string[],
): { values: Values; positionals: string[] } {
  try {
    const { values, positionals } = parseArgs({ args, options, strict: true, allowPositionals: true })
    return { values, positionals }
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code === 'ERR_PARSE_ARGS_UNKNOWN_OPTION') {
      const option = /'(--?[^']+)'/.exec(message)?.[1] ?? ''
      const near = nearest(option.replace(/^-+/, ''), Object.keys(options))
      throw new UsageError(
        `${program} has no option ${option}.${near ? ` Did you mean --${near}?` : ''} ${program} --help lists them.`,
      )
    }
    if (code === 'ERR_PARSE_ARGS_INVALID_OPTION_VALUE') throw new UsageError(`${message.split('\n')[0]}.`)
    throw error
  }
}

function checkArguments({ name, usage }: Command, args: readonly string[]): void {
  const expected = usage.match(/<[^>]+>|\[[^\]]+\]/g) ?? []
  const missing = expected.slice(args.length).find((each) => each.startsWith('<'))
  const line = `berth ${name} ${usage}`.trimEnd()
  if (missing) throw new UsageError(`${missing} is missing: ${line}`)
  if (args.length > expected.length) throw new UsageError(`${args[expected.length]} is one argument too many: ${line}`)
}

async function placesOf(
  flag: string | undefined,
  home: string | undefined,
  { env, cwd }: Surroundings,
): Promise<Pick<CommandContext, 'config' | 'home' | 'cache'>> {
  const config = await findConfigFile({ flag, environment: env, cwd })
  const named = home ?? (env['BERTH_HOME'] || undefined)
  const state = named === undefined ? join(config?.folder ?? cwd, '.berth') : resolve(cwd, named)
  const cache = env['BERTH_CACHE'] ? resolve(cwd, env['BERTH_CACHE']) : join(state, 'cache')
  return { config, home: state, cache }
}

function text(value: string | boolean | undefined): string | undefined {
  return typeof value === 'string' ? value : undefined
}
