// A user's mistake as data: it never stops the services beside it (design §2, §4).

export interface Problem {
  /** What it concerns, e.g. `service files`, `client alice`, `engine host`. */
  readonly about: string
  /** Where it was found, e.g. `berth.yaml:12`, `container mcp-files`, `envoy`. */
  readonly where: string
  /** What is wrong, one sentence, never with a secret's value in it. */
  readonly message: string
  /** What to do about it, one sentence. */
  readonly remedy: string
}

/** Renders a problem on one line, as the CLI and the log print it. */
export function problemLine(problem: Problem): string {
  return `${problem.where}: ${problem.about}: ${problem.message} ${problem.remedy}`
}
