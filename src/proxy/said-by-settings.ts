/** One task: know what the settings of a session say of where its statements go: where names are looked for, and a hint. Read once for each. */
import type { Hint } from '../sharding/router-hints.js';
import { pathKey } from './repeated-statements.js';
import { searchPathOf, type DefaultPath } from './search-path.js';
import { hintOf } from './session-hint.js';
import type { SessionSettings } from './settings.js';

export interface SaidBySettings {
  readonly settings: SessionSettings;
  readonly defaults: DefaultPath;
  /** `NO_PATH`: what names mean is not known */
  readonly path: readonly string[];
  readonly pathKey: string;
  readonly hint: { readonly hint?: Hint };
}

export const NO_PATH: readonly string[] = [];
const NOWHERE: DefaultPath = { path: '', role: '' };

/** The same as `last`, where nothing has changed since. */
export function saidBySettings(
  settings: SessionSettings,
  defaults: DefaultPath = NOWHERE,
  last: SaidBySettings | null = null,
): SaidBySettings {
  if (last?.settings === settings && last.defaults === defaults) return last;
  const path = searchPathOf(settings, defaults) ?? NO_PATH;
  return { settings, defaults, path, pathKey: pathKey(path), hint: hintOf(settings, []) };
}
