/**
 * One task: name the functions of PostgreSQL that any server with the same rows answers, and that change nothing.
 *
 * Taken from the catalogues of 15 and 18 (`pg_proc`, those that are not volatile in any of their forms) without what asks about the server,
 * its schema or its privileges, and a few volatile ones that are only random or tell the time. What is not here is taken to write.
 */
const NAMES = `
  abs acos acosd acosh age any_value array_agg array_append array_cat array_dims array_fill array_length array_lower array_ndims
  array_position array_positions array_prepend array_remove array_replace array_reverse array_sample array_shuffle array_sort
  array_to_json array_to_string array_to_tsvector array_upper ascii asin asind asinh atan atan2 atan2d atand atanh avg
  bit_and bit_count bit_length bit_or bit_xor bool_and bool_or btrim cardinality casefold cbrt ceil ceiling char_length
  character_length chr clock_timestamp concat concat_ws convert convert_from convert_to corr cos cosd cosh cot cotd count covar_pop
  covar_samp cume_dist current_database current_schema current_schemas current_setting date date_add date_bin date_part
  date_subtract date_trunc datemultirange daterange decode degrees dense_rank div encode enum_first enum_last enum_range erf erfc every
  exp extract factorial first_value floor format gamma gcd gen_random_uuid generate_series generate_subscripts get_bit get_byte initcap
  int4multirange int4range int8multirange int8range isempty isfinite is_normalized json_agg json_agg_strict json_array_elements
  json_array_elements_text json_array_length json_build_array json_build_object json_each json_each_text json_extract_path
  json_extract_path_text json_object json_object_agg json_object_agg_strict json_object_agg_unique json_object_agg_unique_strict
  json_object_keys json_populate_record json_populate_recordset json_strip_nulls json_to_record json_to_recordset json_to_tsvector
  json_typeof jsonb_agg jsonb_agg_strict jsonb_array_elements jsonb_array_elements_text jsonb_array_length jsonb_build_array
  jsonb_build_object jsonb_each jsonb_each_text jsonb_extract_path jsonb_extract_path_text jsonb_insert jsonb_object jsonb_object_agg
  jsonb_object_agg_strict jsonb_object_agg_unique jsonb_object_agg_unique_strict jsonb_object_keys jsonb_path_exists
  jsonb_path_exists_tz jsonb_path_match jsonb_path_match_tz jsonb_path_query jsonb_path_query_array jsonb_path_query_array_tz
  jsonb_path_query_first jsonb_path_query_first_tz jsonb_path_query_tz jsonb_populate_record jsonb_populate_recordset jsonb_pretty
  jsonb_set jsonb_set_lax jsonb_strip_nulls jsonb_to_record jsonb_to_recordset jsonb_to_tsvector jsonb_typeof justify_days
  justify_hours justify_interval lag last_value lcm lead left length lgamma like like_escape ln localtime localtimestamp log log10 lower
  lower_inc lower_inf lpad ltrim make_date make_interval make_time make_timestamp make_timestamptz max md5 min min_scale mod mode
  multirange normalize now nth_value ntile num_nonnulls num_nulls nullif nummultirange numnode numrange octet_length overlaps overlay
  parse_ident percent_rank percentile_cont percentile_disc pg_column_size pg_sleep pg_typeof phraseto_tsquery pi plainto_tsquery position
  pow power querytree quote_ident quote_literal quote_nullable radians random random_normal range_agg range_intersect_agg range_merge
  rank regexp_count regexp_instr regexp_like regexp_match regexp_matches regexp_replace regexp_split_to_array regexp_split_to_table
  regexp_substr regr_avgx regr_avgy regr_count regr_intercept regr_r2 regr_slope regr_sxx regr_sxy regr_syy repeat replace reverse
  right round row_number row_to_json rpad rtrim scale set_bit set_byte setweight sha224 sha256 sha384 sha512 sign similar_escape
  similar_to_escape sin sind sinh split_part sqrt starts_with statement_timestamp stddev stddev_pop stddev_samp string_agg
  string_to_array string_to_table strip strpos substr substring sum tan tand tanh text timeofday timestamp timestamptz timezone to_ascii
  to_bin to_char to_date to_hex to_json to_jsonb to_number to_oct to_timestamp to_tsquery to_tsvector transaction_timestamp translate
  trim_array trim_scale trunc ts_delete ts_filter ts_headline ts_rank ts_rank_cd tsmultirange tsquery_phrase tsrange tstzmultirange
  tstzrange tsvector_to_array unistr unnest upper upper_inc upper_inf uuid_extract_timestamp uuid_extract_version uuidv4 uuidv7 var_pop
  var_samp variance version websearch_to_tsquery width_bucket xmlagg xmlcomment xmlexists xpath xpath_exists`;

const HARMLESS: ReadonlySet<string> = new Set(NAMES.trim().split(/\s+/));

/** @param name as called: alone, or behind its schema */
export function isHarmlessFunction(name: readonly string[]): boolean {
  const [schema, last] = name.length === 1 ? ['pg_catalog', name[0]] : name;
  return name.length <= 2 && schema === 'pg_catalog' && last !== undefined && HARMLESS.has(last);
}
