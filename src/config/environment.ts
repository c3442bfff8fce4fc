/** One task: take defaults of `[general]` keys from environment variables `PGDOG_<KEY>`. */
import { CutoverError } from '../errors/errors.js';
import { GENERAL, type GeneralKeys } from './schema.js';

export type Environment = Readonly<Record<string, string | undefined>>;

/**
 * The `[general]` keys that the environment sets. The file has priority over them.
 *
 * @throws CutoverError `environment_invalid`, naming the variable and never its value
 */
export function generalFromEnvironment(environment: Environment): Partial<GeneralKeys> {
  const found: Record<string, unknown> = {};
  for (const [key, schema] of Object.entries(GENERAL)) {
    const variable = `PGDOG_${key.toUpperCase()}`;
    const text = environment[variable];
    if (text === undefined || text === '') continue;
    const asText = schema.safeParse(text);
    const result = asText.success ? asText : schema.safeParse(scalar(text));
    if (!result.success) {
      const reason = (result.error.issues[0]?.message ?? '').replace(/^Invalid (input|option): /, '');
      throw new CutoverError('environment_invalid', { variable, problem: reason });
    }
    found[key] = result.data;
  }
  return found;
}

function scalar(text: string): unknown {
  if (text === 'true' || text === 'false') return text === 'true';
  return /^-?\d+$/.test(text) ? Number(text) : text;
}
