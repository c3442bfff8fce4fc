/** One task: the lint rules; types are checked by tsc, layers by dependency-cruiser, format by prettier. */
import { builtinModules } from 'node:module';
import tseslint from 'typescript-eslint';

const BUILT_INS = [...builtinModules, ...builtinModules.map((name) => `node:${name}`)];

/** What a workflow or the domain must not touch: clocks and randomness make a replay go another way. */
const NOT_DETERMINISTIC = [
  { name: 'process', message: 'The domain and workflows read no environment.' },
  { name: 'Buffer', message: 'The domain and workflows do no I/O.' },
  { name: 'performance', message: 'Take the time as an input.' },
  { name: 'fetch', message: 'The domain and workflows do no I/O.' },
];

export default tseslint.config(
  { ignores: ['dist/', 'dist.*/', 'coverage/', 'node_modules/', '.cutover/'] },
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.strictTypeChecked, tseslint.configs.stylisticTypeChecked],
    languageOptions: {
      parserOptions: {
        projectService: { allowDefaultProject: ['vitest.config.ts'] },
        tsconfigRootDir: import.meta.dirname,
      },
    },
    linterOptions: { reportUnusedDisableDirectives: 'error', noInlineConfig: true },
    rules: {
      '@typescript-eslint/no-floating-promises': 'error',
      '@typescript-eslint/switch-exhaustiveness-check': [
        'error',
        { considerDefaultExhaustiveForUnions: true, allowDefaultCaseForExhaustiveSwitch: true },
      ],
      '@typescript-eslint/consistent-type-imports': ['error', { fixStyle: 'inline-type-imports' }],
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', ignoreRestSiblings: true }],
      'max-lines': ['error', { max: 400, skipBlankLines: true, skipComments: true }],
      eqeqeq: ['error', 'always'],
      'no-console': 'off',
    },
  },
  {
    // The domain: pure, so that the workflow, SHOW TASKS and the audit log fold the same events to the same state.
    files: ['src/cutover/**/*.ts'],
    ignores: ['**/*.test.ts'],
    rules: {
      'no-restricted-imports': [
        'error',
        {
          paths: BUILT_INS,
          patterns: [{ regex: '^(?!\\./|\\.\\./errors/)', message: 'src/cutover imports itself and src/errors only.' }],
        },
      ],
      'no-restricted-globals': ['error', ...NOT_DETERMINISTIC, 'setTimeout', 'setInterval', 'setImmediate'],
      'no-restricted-properties': [
        'error',
        { object: 'Date', property: 'now', message: 'Take the time as an input.' },
        { object: 'Math', property: 'random', message: 'Take randomness as an input.' },
      ],
      'no-restricted-syntax': [
        'error',
        { selector: 'NewExpression[callee.name="Date"][arguments.length=0]', message: 'Take the time as an input.' },
      ],
    },
  },
  {
    files: ['test/**/*.ts'],
    rules: {
      'no-restricted-syntax': [
        'error',
        {
          selector: 'CallExpression[callee.property.name="toMatchObject"] Property > Literal[regex]',
          message: 'toMatchObject takes any text for a match of an expression: use expect.stringMatching().',
        },
      ],
    },
  },
  {
    // Workflows: everything but the domain and the SDK would break a replay.
    files: ['workflows/**/*.ts'],
    rules: {
      'no-restricted-imports': [
        'error',
        {
          paths: BUILT_INS,
          patterns: [
            {
              regex: '^(?!\\./|\\.\\./src/cutover/|@temporalio/workflow$|@temporalio/common$)',
              message: 'Workflows import only src/cutover and @temporalio/workflow.',
            },
          ],
        },
      ],
      'no-restricted-globals': ['error', ...NOT_DETERMINISTIC],
    },
  },
  {
    // One table: as long as there are errors.
    files: ['src/errors/errors.ts'],
    rules: { 'max-lines': 'off' },
  },
  {
    files: ['test/**/*.ts', '**/*.test.ts'],
    rules: {
      // A test of many cases is a list, not a program.
      'max-lines': 'off',
    },
  },
);
