# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.


"""Read or write one option of an INI file: ini.py get|set FILE SECTION ..."""

import configparser
import sys


def main(action: str, path: str, section: str, option: str,
         *value: str) -> None:
    parser = configparser.RawConfigParser(strict=False, default_section='')
    parser.optionxform = str    # type: ignore[assignment, method-assign]
    parser.read(path)
    if action == 'get':
        print(parser.get(section, option, fallback=''))
        return
    if not parser.has_section(section):
        parser.add_section(section)
    parser.set(section, option, *value)
    with open(path, 'w') as file:
        parser.write(file)


if __name__ == '__main__':
    main(*sys.argv[1:])
