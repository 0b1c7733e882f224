// The options that every command has.

import type { CommandOption } from './command.ts'

export const GLOBAL_OPTIONS = {
  config: {
    type: 'string',
    short: 'c',
    value: 'FILE',
    summary: 'The configuration (else $BERTH_CONFIG, ./berth.yaml).',
  },
  home: {
    type: 'string',
    value: 'DIR',
    summary: 'The state folder (else $BERTH_HOME, .berth beside the configuration).',
  },
  json: { type: 'boolean', summary: 'Write one JSON document to standard output.' },
  help: { type: 'boolean', short: 'h', summary: 'Explain the command.' },
} as const satisfies Readonly<Record<string, CommandOption>>
